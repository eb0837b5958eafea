// Included by seccomp.rs: the same, by name.
numbers! {
    read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn ioctl
    pread64 pwrite64 readv writev access pipe select sched_yield mremap msync mincore madvise shmget shmat shmctl dup dup2
    pause nanosleep getitimer alarm setitimer getpid sendfile socket connect accept sendto recvfrom sendmsg recvmsg shutdown
    bind listen getsockname getpeername socketpair setsockopt getsockopt clone fork vfork execve exit wait4 kill uname fcntl
    flock fsync fdatasync truncate ftruncate getdents getcwd chdir fchdir rename mkdir rmdir creat link unlink symlink readlink
    chmod fchmod chown fchown lchown umask gettimeofday getrlimit getrusage sysinfo times getuid getgid setuid setgid geteuid
    getegid setpgid getppid getpgrp setsid setreuid setregid getgroups setgroups setresuid getresuid setresgid getresgid
    getpgid setfsuid setfsgid getsid capget capset rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend sigaltstack
    mknod personality statfs fstatfs getpriority setpriority sched_setparam sched_getparam sched_setscheduler
    sched_getscheduler mlock munlock mlockall munlockall pivot_root prctl arch_prctl setrlimit chroot sync mount umount2
    sethostname gettid readahead setxattr getxattr fsetxattr fgetxattr tkill time futex sched_setaffinity sched_getaffinity
    io_setup io_destroy io_getevents io_submit io_cancel epoll_create getdents64 set_tid_address restart_syscall fadvise64
    timer_create timer_settime timer_gettime timer_getoverrun timer_delete clock_settime clock_gettime clock_getres
    clock_nanosleep exit_group epoll_wait epoll_ctl tgkill utimes mbind set_mempolicy get_mempolicy waitid openat mkdirat
    mknodat fchownat futimesat newfstatat unlinkat renameat linkat symlinkat readlinkat fchmodat faccessat pselect6 ppoll
    unshare set_robust_list get_robust_list splice tee sync_file_range vmsplice utimensat epoll_pwait signalfd timerfd_create
    eventfd fallocate timerfd_settime timerfd_gettime accept4 signalfd4 eventfd2 epoll_create1 dup3 pipe2 inotify_init1
    inotify_add_watch inotify_rm_watch preadv pwritev recvmmsg prlimit64 syncfs sendmmsg setns getcpu process_vm_readv
    process_vm_writev renameat2 seccomp getrandom memfd_create execveat membarrier mlock2 copy_file_range preadv2 pwritev2
    statx rseq pidfd_send_signal pidfd_open close_range openat2 faccessat2 epoll_pwait2 landlock_create_ruleset
    landlock_add_rule landlock_restrict_self name_to_handle_at open_tree move_mount fsopen fsmount fsconfig mount_setattr
    io_uring_setup io_uring_enter io_uring_register
}
