/*
 * What a stranger with full control of a hypervisor would try. Runs in the hypervisor's place, in its cell, with its exact
 * confinement; and once outside, as root, where every attempt must succeed (else it would prove nothing).
 *
 * Facts about the host (a secret file, a port, sockets, process ids) come from the file named by argv[1], or, in the cell, from
 * the kernel command line in the hypervisor's configuration file: words NAME=VALUE between "probe-begin" and "probe-end".
 * Prints one line an attempt on standard error: "attempt NAME: succeeded" or "attempt NAME: REASON".
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/reboot.h>
#include <linux/sched.h>
#include <linux/vm_sockets.h>
#include <mqueue.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char facts[8192];

static const char *fact(const char *name)
{
	static char value[512];
	char key[64];
	const char *at;
	size_t n = 0;

	snprintf(key, sizeof key, " %s=", name);
	if (!(at = strstr(facts, key)))
		return "";
	for (at += strlen(key); at[n] && at[n] != ' ' && n < sizeof value - 1; n++)
		value[n] = at[n];
	value[n] = 0;
	return value;
}
static int number(const char *name) { return atoi(fact(name)); }

/* -1 with errno, or anything else: the attempt succeeded. */
static long opened(int fd) { if (fd >= 0) close(fd); return fd; }
static long rd(const char *path) { return opened(open(path, O_RDONLY)); }
static long wr(const char *path) { return opened(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)); }

/* files */
static long secret_file(void) { return rd(fact("secret")); }
static long secret_by_dots(void)
{
	char path[600];
	snprintf(path, sizeof path, "../../../../../../../..%s", fact("secret"));
	return rd(path);
}
static long password_file(void) { return rd("/etc/passwd"); }
static long proc_self(void) { return rd("/proc/self/status"); }
static long of_process(const char *below)
{
	static char path[600];
	snprintf(path, sizeof path, "/proc/%d/%s", number("pid"), below);
	return rd(path);
}
static long root_of_process(void) { return of_process("root/etc"); }
static long files_of_process(void) { return of_process("fd"); }
static long own_program(void) { char b[256]; return readlink("/proc/self/exe", b, sizeof b); }
static long sysfs(void) { return rd("/sys/class/net"); }
static long state_directory(void) { return rd(fact("state")); }
static long home_directories(void) { return rd("/home"); }
static long kernel_log_device(void) { return rd("/dev/kmsg"); }
static long loop_devices(void) { return rd("/dev/loop-control"); }
static long tun_device(void) { return opened(open("/dev/net/tun", O_RDWR)); }
static long terminal_master(void) { return opened(open("/dev/ptmx", O_RDWR)); }
static long fuse_device(void) { return opened(open("/dev/fuse", O_RDWR)); }
static long write_root(void) { long r = wr("/probe-file"); if (r >= 0) unlink("/probe-file"); return r; }
static long write_usr_bin(void) { long r = wr("/usr/bin/probe-file"); if (r >= 0) unlink("/usr/bin/probe-file"); return r; }
static long write_dev(void) { long r = wr("/dev/probe-file"); if (r >= 0) unlink("/dev/probe-file"); return r; }
static long write_run(void) { long r = wr("/run/probe-file"); if (r >= 0) unlink("/run/probe-file"); return r; }
static long make_directory(void) { long r = mkdir("/run/probe-dir", 0700); if (!r) rmdir("/run/probe-dir"); return r; }
static long make_symlink(void) { long r = symlink("/", "/run/probe-link"); if (!r) unlink("/run/probe-link"); return r; }
static long make_device(void)
{
	long r = mknod("/run/probe-null", S_IFCHR | 0600, 0x103);
	if (!r) unlink("/run/probe-null");
	return r;
}
static long change_root(void)
{
	pid_t p;
	int s;
	if ((p = vfork()) == 0)
		_exit(chroot("/usr") ? errno : 0);
	if (p < 0 || waitpid(p, &s, 0) < 0)
		return -1;
	errno = WEXITSTATUS(s);
	return errno ? -1 : 0;
}
static long file_handle(void)
{
	struct { struct file_handle h; char room[128]; } f;
	int id;
	f.h.handle_bytes = 128;
	if (name_to_handle_at(AT_FDCWD, "/usr", &f.h, &id, 0))
		return -1;
	int dir = open("/usr", O_RDONLY | O_DIRECTORY);
	return opened(open_by_handle_at(dir, &f.h, O_RDONLY));
}

/* programs */
static long run_program(const char *path)
{
	pid_t p;
	int s;
	if ((p = vfork()) == 0) {
		execl(path, "probe-child", "--true", (char *)0);
		_exit(errno);
	}
	if (p < 0 || waitpid(p, &s, 0) < 0)
		return -1;
	errno = WEXITSTATUS(s);
	return errno ? -1 : 0;
}
static long run_true(void) { return run_program("/bin/true"); }
static long run_itself(void) { return run_program(fact("self")); }
static long run_memory(void)
{
	int fd = syscall(SYS_memfd_create, "x", 0), in = open(fact("self"), O_RDONLY);
	char b[65536], path[64];
	ssize_t n;
	if (fd < 0 || in < 0)
		return -1;
	while ((n = read(in, b, sizeof b)) > 0)
		if (write(fd, b, n) != n)
			return -1;
	close(in);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	return run_program(path);
}
static long fork_process(void)
{
	pid_t p = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (p == 0) _exit(0);
	if (p > 0) waitpid(p, 0, 0);
	return p;
}

/* network */
static long inet_stream(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(number("port")), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int s = socket(AF_INET, SOCK_STREAM, 0);
	long r = s < 0 ? -1 : connect(s, (void *)&a, sizeof a);
	int e = errno;
	if (s >= 0) close(s);
	errno = e;
	return r;
}
static long inet_listen(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int s = socket(AF_INET, SOCK_STREAM, 0);
	long r = s < 0 || bind(s, (void *)&a, sizeof a) ? -1 : listen(s, 1);
	int e = errno;
	if (s >= 0) close(s);
	errno = e;
	return r;
}
static long inet_datagram(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int s = socket(AF_INET, SOCK_DGRAM, 0);
	long r = s < 0 ? -1 : sendto(s, "x", 1, 0, (void *)&a, sizeof a);
	int e = errno;
	if (s >= 0) close(s);
	errno = e;
	return r;
}
static long inet6_socket(void) { return opened(socket(AF_INET6, SOCK_DGRAM, 0)); }
static long raw_icmp(void) { return opened(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)); }
static long packet_socket(void) { return opened(socket(AF_PACKET, SOCK_RAW, htons(3))); }
static long netlink_route(void) { return opened(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)); }
static long netlink_uevent(void) { return opened(socket(AF_NETLINK, SOCK_RAW, NETLINK_KOBJECT_UEVENT)); }
static long unix_socket(void) { return opened(socket(AF_UNIX, SOCK_STREAM, 0)); }
static long unix_connect(const char *path, int abstract, int type)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	socklen_t len = offsetof(struct sockaddr_un, sun_path) + strlen(path) + 1;
	snprintf(a.sun_path + abstract, sizeof a.sun_path - abstract, "%s", path);
	int s = socket(AF_UNIX, type, 0);
	long r = s < 0 ? -1 : connect(s, (void *)&a, abstract ? len : sizeof a);
	int e = errno;
	if (s >= 0) close(s);
	errno = e;
	return r;
}
static long abstract_connect(void) { return unix_connect(fact("abstract"), 1, SOCK_STREAM); }
static long broker_connect(void) { return unix_connect(fact("broker"), 0, SOCK_SEQPACKET); }
static long interface_list(void)
{
	struct ifconf c = { 0 };
	int s = socket(AF_INET, SOCK_DGRAM, 0);
	long r = s < 0 ? -1 : ioctl(s, SIOCGIFCONF, &c);
	int e = errno;
	if (s >= 0) close(s);
	errno = e;
	return r;
}

/* other processes */
static long signal_host(void) { return kill(number("pid"), 0); }
static long signal_parent(void) { return kill(getppid(), 0); }
static long signal_all(void) { return kill(-1, 0); }
static long trace_parent(void) { long r = ptrace(PTRACE_ATTACH, number("pid"), 0, 0); if (!r) { waitpid(number("pid"), 0, __WALL); ptrace(PTRACE_DETACH, number("pid"), 0, 0); } return r; }
static long read_memory(void)
{
	static char b[8];
	struct iovec l = { b, 8 }, r = { (void *)strtoul(fact("address"), 0, 16), 8 };
	return process_vm_readv(number("pid"), &l, 1, &r, 1, 0);
}
static long process_handle(void) { return opened(syscall(SYS_pidfd_open, number("pid"), 0)); }
static long process_limit(void) { struct rlimit l; return prlimit(number("pid"), RLIMIT_NOFILE, 0, &l); }
static long raise_file_limit(void)
{
	struct rlimit l;
	if (getrlimit(RLIMIT_FSIZE, &l)) return -1;
	l.rlim_cur = l.rlim_max;
	return setrlimit(RLIMIT_FSIZE, &l);
}
static long process_compare(void) { return syscall(SYS_kcmp, getpid(), number("pid"), 0, 0, 0); }
static long process_priority(void) { return setpriority(PRIO_PROCESS, number("pid"), 0); }
static long real_time(void)
{
	struct sched_param p = { .sched_priority = 1 }, o = { 0 };
	long r = sched_setscheduler(0, SCHED_FIFO, &p);
	if (!r) sched_setscheduler(0, SCHED_OTHER, &o);
	return r;
}
static long performance_events(void)
{
	struct { unsigned type, size; unsigned long config, rest[14]; } a = { .type = 1, .size = 128 };
	return opened(syscall(SYS_perf_event_open, &a, number("pid"), -1, -1, 0));
}

/* namespaces and mounts */
static long in_child(long (*what)(void))
{
	pid_t p = fork();
	int s;
	if (p == 0)
		_exit(what() == -1 ? errno : 0);
	if (p < 0 || waitpid(p, &s, 0) < 0)
		return -1;
	errno = WEXITSTATUS(s);
	return errno ? -1 : 0;
}
#define UNSHARE(name, flag) \
	static long name##_(void) { return unshare(flag); } \
	static long name(void) { return strcmp(fact("where"), "outside") ? name##_() : in_child(name##_); }
UNSHARE(new_user_namespace, CLONE_NEWUSER)
UNSHARE(new_mount_namespace, CLONE_NEWNS)
UNSHARE(new_network_namespace, CLONE_NEWNET)
UNSHARE(new_pid_namespace, CLONE_NEWPID)
static long clone_user_namespace(void)
{
	pid_t p = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
	if (p == 0) _exit(0);
	if (p > 0) waitpid(p, 0, 0);
	return p;
}
static long join_namespace(void)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/ns/uts", number("pid"));
	int fd = open(path, O_RDONLY);
	return fd < 0 ? -1 : setns(fd, CLONE_NEWUTS);
}
static long mount_tmpfs(void) { long r = mount("x", "/mnt", "tmpfs", 0, 0); if (!r) umount("/mnt"); return r; }
static long mount_bind(void) { long r = mount("/usr", "/mnt", 0, MS_BIND, 0); if (!r) umount("/mnt"); return r; }
static long mount_proc(void) { long r = mount("x", "/mnt", "proc", 0, 0); if (!r) umount("/mnt"); return r; }
static long remount_root(void) { return mount(0, "/", 0, MS_REMOUNT | MS_BIND, 0); }
static long open_filesystem(void) { return opened(syscall(SYS_fsopen, "tmpfs", 0)); }
static long open_tree_clone(void) { return opened(syscall(SYS_open_tree, AT_FDCWD, "/usr", 1)); }

/* privilege and the kernel */
static long become_root(void) { return syscall(SYS_setuid, 0); }
static long become_root_all(void) { return setresuid(0, 0, 0); }
static long become_wheel(void) { return setresgid(0, 0, 0); }
static long join_groups(void) { gid_t g = 0; return syscall(SYS_setgroups, 1, &g); }
static long take_capabilities(void)
{
	unsigned h[2] = { 0x20080522, 0 }, d[6];
	if (syscall(SYS_capget, h, d))
		return -1;
	d[0] = d[1] = 1u << 21; /* CAP_SYS_ADMIN */
	d[2] = d[3] = d[4] = d[5] = 0;
	return strcmp(fact("where"), "outside") ? syscall(SYS_capset, h, d) : 0;
}
static long key_add(void) { return syscall(SYS_add_key, "user", "skep-probe", "x", 1, -2); }
static long key_search(void) { return syscall(SYS_keyctl, 0, -3, 1); }
static long load_bpf(void) { unsigned a[16] = { 2, 4, 4, 1 }; return opened(syscall(SYS_bpf, 0, a, sizeof a)); }
static long user_faults(void) { return opened(syscall(SYS_userfaultfd, 0)); }
static long io_rings(void) { char p[120] = { 0 }; return opened(syscall(SYS_io_uring_setup, 1, p)); }
static long kernel_log(void) { char b[64]; return syscall(SYS_syslog, 3, b, sizeof b); }
static long set_clock(void) { struct timespec t; clock_gettime(CLOCK_REALTIME, &t); return clock_settime(CLOCK_REALTIME, &t); }
static long control_alt_delete(void) { return syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_CAD_OFF, 0); }
static long accounting(void) { return syscall(SYS_acct, 0); }
static long set_host_name(void) { return sethostname("probe", 5); }
static long know_host_name(void)
{
	struct utsname u;
	if (uname(&u))
		return -1;
	errno = ENOENT;
	return strcmp(u.nodename, fact("host")) ? -1 : 0;
}
static long watch_all_files(void) { return opened(syscall(SYS_fanotify_init, 0, 0)); }
static long shared_memory(void)
{
	int id = shmget(number("shm"), 0, 0);
	return id;
}
static long message_queue(void)
{
	char path[600];
	snprintf(path, sizeof path, "/%s", fact("queue"));
	return opened(mq_open(path, O_RDONLY));
}
static long personality_change(void) { return syscall(SYS_personality, 0x0040000); }
static long trace_me(void) { return strcmp(fact("where"), "outside") ? ptrace(PTRACE_TRACEME, 0, 0, 0) : 0; }
static long inherited_directory(void)
{
	struct stat s;
	for (int fd = 0; fd < 1024; fd++)
		if (!fstat(fd, &s) && S_ISDIR(s.st_mode))
			return 0;
	errno = EBADF;
	return -1;
}

/* directories that it shares; in other cells they are not there */
static int share(const char *name) { return open(strcmp(fact("where"), "outside") ? name : "/usr/share", O_RDONLY | O_DIRECTORY); }
static long share_upwards(void)
{
	char path[600];
	snprintf(path, sizeof path, "../../../..%s", fact("secret"));
	int dir = share("/share/1");
	return dir < 0 ? -1 : opened(openat(dir, path, O_RDONLY));
}
static long share_link(void) { return rd(strcmp(fact("where"), "outside") ? "/share/0/link" : fact("secret")); }
static long share_program(void) { return run_program(strcmp(fact("where"), "outside") ? "/share/1/program" : "/bin/true"); }
static long share_read_only(void)
{
	int dir = strcmp(fact("where"), "outside") ? open("/share/0", O_RDONLY) : open("/tmp", O_RDONLY);
	long r = dir < 0 ? -1 : mkdirat(dir, "probe-made", 0700);
	if (!r) unlinkat(dir, "probe-made", AT_REMOVEDIR);
	return r;
}
static long make_directory_at(void)
{
	long r = mkdirat(AT_FDCWD, "/run/probe-at", 0700);
	if (!r) rmdir("/run/probe-at");
	return r;
}
static long remove_file_at(void)
{
	if (strcmp(fact("where"), "outside"))
		return unlinkat(AT_FDCWD, "/run/machine.conf", 0);
	wr("/run/probe-gone");
	return unlinkat(AT_FDCWD, "/run/probe-gone", 0);
}

/* files of its own */
static long expose_disk(void)
{
	struct stat s;
	for (int fd = 3; fd < 1024; fd++)
		if (!fstat(fd, &s) && S_ISREG(s.st_mode) && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR)
			return fchmod(fd, 04777);
	errno = EBADF;
	return -1;
}
static long grow_disk(void)
{
	struct stat s;
	for (int fd = 3; fd < 1024; fd++)
		if (!fstat(fd, &s) && S_ISREG(s.st_mode) && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR)
			return pwrite(fd, "x", 1, 1l << 40) == 1 ? 0 : -1;
	errno = EBADF;
	return -1;
}

#define A(name) { #name, name }
static const struct { const char *name; long (*what)(void); } attempts[] = {
	A(secret_file), A(secret_by_dots), A(password_file), A(proc_self), A(root_of_process), A(files_of_process), A(own_program), A(sysfs),
	A(state_directory), A(home_directories), A(kernel_log_device), A(loop_devices), A(tun_device),
	A(terminal_master), A(fuse_device), A(write_root), A(write_usr_bin), A(write_dev), A(write_run), A(make_directory),
	A(make_symlink), A(make_device), A(change_root), A(file_handle), A(inherited_directory),
	A(run_true), A(run_itself), A(run_memory), A(fork_process),
	A(inet_stream), A(inet_listen), A(inet_datagram), A(inet6_socket), A(raw_icmp), A(packet_socket), A(netlink_route),
	A(netlink_uevent), A(unix_socket), A(abstract_connect), A(broker_connect), A(interface_list),
	A(signal_host), A(signal_parent), A(signal_all), A(trace_parent), A(trace_me), A(read_memory), A(process_handle),
	A(process_limit), A(raise_file_limit), A(process_compare), A(process_priority), A(real_time), A(performance_events),
	A(new_user_namespace), A(new_mount_namespace), A(new_network_namespace), A(new_pid_namespace), A(clone_user_namespace),
	A(join_namespace), A(mount_tmpfs), A(mount_bind), A(mount_proc), A(remount_root), A(open_filesystem), A(open_tree_clone),
	A(become_root), A(become_root_all), A(become_wheel), A(join_groups), A(take_capabilities), A(key_add), A(key_search),
	A(load_bpf), A(user_faults), A(io_rings), A(kernel_log), A(set_clock), A(control_alt_delete), A(accounting),
	A(set_host_name), A(know_host_name), A(watch_all_files), A(shared_memory), A(message_queue),
	A(personality_change), A(grow_disk), A(expose_disk),
	A(share_upwards), A(share_link), A(share_program), A(share_read_only), A(make_directory_at), A(remove_file_at),
};

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "--true"))
		return 0;
	int fd = open(argc == 2 ? argv[1] : "/run/machine.conf", O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, facts, sizeof facts - 1);
	if (n < 0 || !strstr(facts, "probe-begin") || !strstr(facts, "probe-end")) {
		fprintf(stderr, "probe: no facts: %s\n", n < 0 ? strerror(errno) : facts);
		return 9;
	}
	close(fd);
	for (size_t i = 0; i < sizeof attempts / sizeof *attempts; i++) {
		errno = 0;
		long r = attempts[i].what();
		fprintf(stderr, "attempt %s: %s\n", attempts[i].name, r == -1 ? strerror(errno) : "succeeded");
	}
	fprintf(stderr, "attempts: %zu\n", sizeof attempts / sizeof *attempts);
	return 0;
}
