/*
 * What a stranger with full control of a bhyve would try. Runs in bhyve's place, in its jail, with its exact confinement (on 13 and
 * 14 as root of the jail); and once outside, as root, where every attempt must succeed (else it would prove nothing).
 *
 * Facts about the host come from the file named by argv[1], in the cell from /skep/facts, which the test puts into the cell's root:
 * words NAME=VALUE. Prints one line an attempt on standard error: "attempt NAME: succeeded" or "attempt NAME: REASON".
 */
#include <sys/param.h>
#include <sys/cpuset.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/jail.h>
#include <sys/ktrace.h>
#include <sys/linker.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/rtprio.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysctl.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <kenv.h>
#include <net/if.h>
#include <netinet/in.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char facts[8192];

static const char *fact(const char *name)
{
	static char values[4][512];
	static int turn;
	char key[64], *value = values[turn++ & 3];
	const char *at;
	size_t n = 0;

	value[0] = 0;
	snprintf(key, sizeof key, " %s=", name);
	if (!(at = strstr(facts, key)))
		return value;
	for (at += strlen(key); at[n] && at[n] != ' ' && n < 511; n++)
		value[n] = at[n];
	value[n] = 0;
	return value;
}
static int number(const char *name) { return atoi(fact(name)); }
static int outside(void) { return !strcmp(fact("where"), "outside"); }

/* -1 with errno, or anything else: the attempt succeeded. */
static long opened(int fd) { if (fd >= 0) close(fd); return fd; }
static long rd(const char *path) { return opened(open(path, O_RDONLY | O_NONBLOCK)); }
static long made(const char *path)
{
	long r = opened(open(path, O_WRONLY | O_CREAT, 0600));
	if (r >= 0)
		unlink(path);
	return r;
}
/* What changes the process itself is tried in a child. */
static long in_child(long (*what)(void))
{
	pid_t p = fork();
	int s;
	if (p == 0)
		_exit(what() == -1 ? errno : 0);
	if (p < 0 || waitpid(p, &s, 0) < 0)
		return -1;
	errno = WIFEXITED(s) ? WEXITSTATUS(s) : EINTR;
	return errno ? -1 : 0;
}

/* files */
static long secret_file(void) { return rd(fact("secret")); }
static long secret_by_dots(void)
{
	char path[600];
	snprintf(path, sizeof path, "../../../../../../../..%s", fact("secret"));
	return rd(path);
}
static long password_file(void) { return rd("/etc/master.passwd"); }
static long state_directory(void) { return rd(fact("state")); }
static long home_of_root(void) { return rd("/root"); }
static long kernel_file(void) { return rd("/boot/kernel/kernel"); }
static long write_root(void) { return made("/probe-file"); }
static long write_programs(void) { return made("/usr/sbin/probe-file"); }
static long write_libraries(void) { return made("/lib/probe-file"); }
static long make_device(void)
{
	long r = mknod("/tmp/probe-null", S_IFCHR | 0600, 0x103);
	if (!r) unlink("/tmp/probe-null");
	return r;
}
static long file_handle(void)
{
	fhandle_t h;
	if (getfh("/", &h))
		return -1;
	return opened(fhopen(&h, O_RDONLY));
}
static long immutable_file(void)
{
	long r = opened(open("/tmp/probe-flags", O_WRONLY | O_CREAT, 0600));
	if (r < 0)
		return -1;
	r = chflags("/tmp/probe-flags", SF_APPEND);
	int e = errno;
	if (!r) chflags("/tmp/probe-flags", 0);
	unlink("/tmp/probe-flags");
	errno = e;
	return r;
}
static long inherited_directory(void)
{
	struct stat s;
	if (outside())
		return 0;
	for (int fd = 0; fd < 1024; fd++)
		if (!fstat(fd, &s) && S_ISDIR(s.st_mode))
			return 0;
	errno = EBADF;
	return -1;
}

/* devices */
static long memory_device(void) { return rd("/dev/mem"); }
static long kernel_memory(void) { return rd("/dev/kmem"); }
static long port_device(void) { return rd("/dev/io"); }
static long pci_device(void) { return rd("/dev/pci"); }
static long device_events(void) { return rd("/dev/devctl2"); }
static long memory_disks(void) { return rd("/dev/mdctl"); }
static long geom_control(void) { return rd("/dev/geom.ctl"); }
static long console_device(void) { return rd("/dev/console"); }
static long packet_filter(void) { return rd("/dev/bpf"); }
static long new_tap(void)
{
	struct ifreq interface = { 0 };
	int fd = open("/dev/tap", O_RDWR), control = socket(AF_LOCAL, SOCK_DGRAM, 0);
	if (fd < 0) return -1;
	/* Outside it is made, and goes again. */
	fdevname_r(fd, interface.ifr_name, sizeof interface.ifr_name);
	close(fd);
	ioctl(control, SIOCIFDESTROY, &interface);
	close(control);
	return 0;
}
static long hosts_disk(void) { return rd(fact("disk")); }
static long hosts_terminal(void) { return rd(fact("tty")); }

/* other machines */
static long other_machine(void)
{
	char path[200];
	snprintf(path, sizeof path, "/dev/vmm/%s", fact("vm"));
	return opened(open(path, O_RDWR));
}
static long destroy_other_machine(void)
{
	const char *name = fact("vm");
	return sysctlbyname("hw.vmm.destroy", 0, 0, name, strlen(name) + 1);
}

/* processes */
static long signal_host(void) { return kill(number("pid"), 0); }
static long signal_init(void) { return kill(1, 0); }
static long trace_process(void)
{
	long r = ptrace(PT_ATTACH, number("pid"), 0, 0);
	if (!r) { waitpid(number("pid"), 0, 0); ptrace(PT_DETACH, number("pid"), (caddr_t)1, 0); }
	return r;
}
static long kernel_trace(void)
{
	long r = ktrace("/tmp/probe-trace", KTROP_CLEAR, KTRFAC_SYSCALL, number("pid"));
	return r;
}
static long process_facts(void)
{
	int mib[4] = { CTL_KERN, KERN_PROC, KERN_PROC_PID, number("pid") };
	struct kinfo_proc k;
	size_t n = sizeof k;
	if (sysctl(mib, 4, &k, &n, 0, 0))
		return -1;
	errno = ESRCH;
	return n ? 0 : -1;
}
static long process_arguments(void)
{
	int mib[4] = { CTL_KERN, KERN_PROC, KERN_PROC_ARGS, number("pid") };
	char b[4096];
	size_t n = sizeof b;
	if (sysctl(mib, 4, b, &n, 0, 0))
		return -1;
	errno = ESRCH;
	return n ? 0 : -1;
}
static long process_files(void)
{
	int mib[4] = { CTL_KERN, KERN_PROC, KERN_PROC_FILEDESC, number("pid") };
	static char b[1 << 16];
	size_t n = sizeof b;
	return sysctl(mib, 4, b, &n, 0, 0);
}
static long process_priority(void) { return setpriority(PRIO_PROCESS, number("pid"), 0); }
static long process_real_time(void) { struct rtprio r; return rtprio(RTP_LOOKUP, number("pid"), &r); }
static long process_cores(void)
{
	cpuset_t s;
	if (cpuset_getaffinity(CPU_LEVEL_WHICH, CPU_WHICH_PID, number("pid"), sizeof s, &s))
		return -1;
	return cpuset_setaffinity(CPU_LEVEL_WHICH, CPU_WHICH_PID, number("pid"), sizeof s, &s);
}
static long real_time(void)
{
	struct rtprio r = { RTP_PRIO_REALTIME, 31 }, o = { RTP_PRIO_NORMAL, 0 };
	long x = rtprio(RTP_SET, 0, &r);
	if (!x) rtprio(RTP_SET, 0, &o);
	return x;
}

/* jails */
static struct iovec part(const void *base, size_t n) { struct iovec v = { (void *)base, n }; return v; }
static long see_jail(void)
{
	int id = number("jail");
	char name[256];
	struct iovec v[4] = { part("jid", 4), part(&id, sizeof id), part("name", 5), part(name, sizeof name) };
	return jail_get(v, 4, 0);
}
static long join_jail_(void) { return jail_attach(number("jail")); }
static long join_jail(void) { return in_child(join_jail_); }
static long change_jail(void)
{
	int id = number("jail"), level = 1;
	struct iovec v[4] = { part("jid", 4), part(&id, sizeof id), part("securelevel", 12), part(&level, sizeof level) };
	return jail_set(v, 4, JAIL_UPDATE);
}
static long make_jail_(void)
{
	struct iovec v[2] = { part("path", 5), part("/", 2) };
	return jail_set(v, 2, JAIL_CREATE | JAIL_ATTACH);
}
static long make_jail(void) { return in_child(make_jail_); }

/* network */
static long closed(int s, long r) { int e = errno; if (s >= 0) close(s); errno = e; return r; }
static long hosts_port(void)
{
	struct sockaddr_in a = { .sin_len = sizeof a, .sin_family = AF_INET, .sin_port = htons(number("port")), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int s = socket(AF_INET, SOCK_STREAM, 0);
	return closed(s, s < 0 ? -1 : connect(s, (void *)&a, sizeof a));
}
static long hosts_interface(void)
{
	struct ifreq r = { 0 };
	int s = socket(AF_UNIX, SOCK_DGRAM, 0);
	snprintf(r.ifr_name, sizeof r.ifr_name, "%s", fact("interface"));
	return closed(s, s < 0 ? -1 : ioctl(s, SIOCGIFFLAGS, &r));
}
static long take_interface(void)
{
	struct ifreq r = { 0 };
	int s = socket(AF_UNIX, SOCK_DGRAM, 0);
	snprintf(r.ifr_name, sizeof r.ifr_name, "%s", fact("interface"));
	/* As it is: UP stays. */
	if (s >= 0 && !ioctl(s, SIOCGIFFLAGS, &r))
		return closed(s, ioctl(s, SIOCSIFFLAGS, &r));
	return closed(s, -1);
}
static long broker_connect(void)
{
	struct sockaddr_un a = { .sun_len = sizeof a, .sun_family = AF_UNIX };
	int s = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	snprintf(a.sun_path, sizeof a.sun_path, "%s", fact("broker"));
	return closed(s, s < 0 ? -1 : connect(s, (void *)&a, sizeof a));
}

/* mounts */
static long mount_kind(const char *kind, const char *target)
{
	struct iovec v[6] = {
		part("fstype", 7), part(kind, strlen(kind) + 1), part("fspath", 7), part("/mnt", 5), part("target", 7), part(target, strlen(target) + 1),
	};
	long r = nmount(v, target[0] ? 6 : 4, 0);
	if (!r) unmount("/mnt", MNT_FORCE);
	return r;
}
static long mount_tmpfs(void) { return mount_kind("tmpfs", ""); }
static long mount_devfs(void) { return mount_kind("devfs", ""); }
static long mount_nullfs(void) { return mount_kind("nullfs", "/usr"); }
static long remount_root(void)
{
	struct iovec v[4] = { part("fstype", 7), part(fact("fstype"), 0), part("fspath", 7), part("/", 2) };
	v[1].iov_len = strlen(v[1].iov_base) + 1;
	return nmount(v, 4, MNT_UPDATE);
}

/* the kernel */
static long load_module(void)
{
	int id = kldload(fact("module"));
	if (id >= 0) kldunload(id);
	return id;
}
static long change_sysctl(void)
{
	int v;
	size_t n = sizeof v;
	if (sysctlbyname("kern.maxfiles", &v, &n, 0, 0))
		return -1;
	return sysctlbyname("kern.maxfiles", 0, 0, &v, sizeof v);
}
static long kernel_environment(void)
{
	long r = kenv(KENV_SET, "skep_probe", (char *)"1", 2);
	if (!r) kenv(KENV_UNSET, "skep_probe", 0, 0);
	return r;
}
static long kernel_log(void) { char b[64]; size_t n = 0; (void)b; return sysctlbyname("kern.msgbuf", 0, &n, 0, 0) || sysctlbyname("kern.msgbuf", malloc(n + 1), &n, 0, 0) ? -1 : 0; }
static long set_clock(void) { struct timeval t; gettimeofday(&t, 0); return settimeofday(&t, 0); }
static long accounting(void) { return acct(0); }
static long shared_memory(void)
{
	int id = shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600);
	if (id >= 0) shmctl(id, IPC_RMID, 0);
	return id;
}
static long limits_of_host(void)
{
	char b[65536];
	return syscall(SYS_rctl_get_racct, "user:0", (size_t)7, b, sizeof b);
}
static long lift_limits(void)
{
	char rule[] = "jail:skep-probe:maxproc:deny=10";
	long r = syscall(SYS_rctl_add_rule, rule, sizeof rule, (void *)0, (size_t)0);
	if (!r) syscall(SYS_rctl_remove_rule, rule, sizeof rule, (void *)0, (size_t)0);
	return r;
}
static long know_host_name(void)
{
	char b[256];
	if (gethostname(b, sizeof b))
		return -1;
	errno = ENOENT;
	return strcmp(b, fact("host")) ? -1 : 0;
}

#define A(name) { #name, name }
static const struct { const char *name; long (*what)(void); } attempts[] = {
	A(secret_file), A(secret_by_dots), A(password_file), A(state_directory), A(home_of_root), A(kernel_file), A(write_root),
	A(write_programs), A(write_libraries), A(make_device), A(file_handle), A(immutable_file), A(inherited_directory),
	A(memory_device), A(kernel_memory), A(port_device), A(pci_device), A(device_events), A(memory_disks), A(geom_control),
	A(console_device), A(packet_filter), A(new_tap), A(hosts_disk), A(hosts_terminal),
	A(other_machine), A(destroy_other_machine),
	A(signal_host), A(signal_init), A(trace_process), A(kernel_trace), A(process_facts), A(process_arguments), A(process_files),
	A(process_priority), A(process_real_time), A(process_cores), A(real_time),
	A(see_jail), A(join_jail), A(change_jail), A(make_jail),
	A(hosts_port), A(hosts_interface), A(take_interface), A(broker_connect),
	A(mount_tmpfs), A(mount_devfs), A(mount_nullfs), A(remount_root),
	A(load_module), A(change_sysctl), A(kernel_environment), A(kernel_log), A(set_clock), A(accounting), A(shared_memory),
	A(limits_of_host), A(lift_limits), A(know_host_name),
};

int main(int argc, char **argv)
{
	int fd = open(argc == 2 ? argv[1] : "/skep/facts", O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, facts, sizeof facts - 1);
	if (n < 0) {
		fprintf(stderr, "probe: no facts: %s\n", strerror(errno));
		return 9;
	}
	close(fd);
	setvbuf(stderr, 0, _IOLBF, 0);
	/* A call that this kernel has not is then an error like others. */
	signal(SIGSYS, SIG_IGN);
	for (size_t i = 0; i < sizeof attempts / sizeof *attempts; i++) {
		errno = 0;
		long r = attempts[i].what();
		fprintf(stderr, "attempt %s: %s\n", attempts[i].name, r == -1 ? strerror(errno) : "succeeded");
	}
	fprintf(stderr, "attempts: %zu\n", sizeof attempts / sizeof *attempts);
	return 9;
}
