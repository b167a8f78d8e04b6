//! The system calls that are left: those that computing, memory, threads, clocks and the open channel need.
//!
//! Two filters. The first lists what is allowed and answers "no such call" to everything else, so that libraries fall
//! back as they do on old kernels. The second answers "not permitted" to what would be an attempt to get out, and wins
//! where both answer, because it is installed later. Neither kills: a model that merely asks goes on without.

use std::collections::BTreeMap;

use libc::{ENOSYS, EPERM, PROT_EXEC, c_long};
use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
use seccompiler::{BackendError, BpfProgram, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule};

use super::Report;

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// Allowed with any arguments.
#[rustfmt::skip] // by topic, not one to a line
const ALLOWED: &[c_long] = &[
    // the channel and the log
    libc::SYS_read, libc::SYS_write, libc::SYS_readv, libc::SYS_writev, libc::SYS_recvfrom, libc::SYS_recvmsg,
    libc::SYS_sendto, libc::SYS_sendmsg, libc::SYS_close, libc::SYS_fstat, libc::SYS_newfstatat, libc::SYS_lseek,
    libc::SYS_ppoll, libc::SYS_fcntl, libc::SYS_shutdown,
    // memory
    libc::SYS_munmap, libc::SYS_mremap, libc::SYS_madvise, libc::SYS_brk, libc::SYS_membarrier,
    // threads
    libc::SYS_futex, libc::SYS_set_robust_list, libc::SYS_get_robust_list, libc::SYS_rseq, libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity, libc::SYS_sched_setaffinity, libc::SYS_sched_getparam, libc::SYS_sched_getscheduler,
    libc::SYS_getcpu, libc::SYS_gettid, libc::SYS_getpid, libc::SYS_getppid, libc::SYS_exit, libc::SYS_exit_group,
    // signals of one's own
    libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn, libc::SYS_sigaltstack, libc::SYS_restart_syscall,
    // time, chance, and what the machine is like
    libc::SYS_nanosleep, libc::SYS_clock_nanosleep, libc::SYS_clock_gettime, libc::SYS_clock_getres, libc::SYS_gettimeofday,
    libc::SYS_getrandom, libc::SYS_getrusage, libc::SYS_times, libc::SYS_sysinfo, libc::SYS_uname, libc::SYS_getuid,
    libc::SYS_geteuid, libc::SYS_getgid, libc::SYS_getegid,
    // stepping back while a model is loaded; nobody gets more than he has
    libc::SYS_setpriority, libc::SYS_getpriority, libc::SYS_ioprio_set,
];

/// Old calls that newer architectures do not have.
#[cfg(target_arch = "x86_64")]
const ALLOWED_OLD: &[c_long] = &[libc::SYS_poll, libc::SYS_time, libc::SYS_getrlimit];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_OLD: &[c_long] = &[];

/// Attempts to get out: files, network, processes, privileges, the kernel's larger surfaces.
#[rustfmt::skip] // by topic, not one to a line
const FORBIDDEN: &[c_long] = &[
    libc::SYS_openat, libc::SYS_openat2, libc::SYS_open_by_handle_at, libc::SYS_memfd_create,
    libc::SYS_socket, libc::SYS_socketpair, libc::SYS_connect, libc::SYS_bind, libc::SYS_listen, libc::SYS_accept,
    libc::SYS_accept4, libc::SYS_execve, libc::SYS_execveat, libc::SYS_ptrace, libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev, libc::SYS_kill, libc::SYS_tkill, libc::SYS_pidfd_open, libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal, libc::SYS_unshare, libc::SYS_setns, libc::SYS_mount, libc::SYS_umount2,
    libc::SYS_pivot_root, libc::SYS_chroot, libc::SYS_setuid, libc::SYS_setresuid, libc::SYS_capset, libc::SYS_bpf,
    libc::SYS_perf_event_open, libc::SYS_userfaultfd, libc::SYS_io_uring_setup, libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register, libc::SYS_keyctl, libc::SYS_add_key, libc::SYS_request_key, libc::SYS_kexec_load,
    libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module, libc::SYS_reboot, libc::SYS_ioctl,
    libc::SYS_seccomp,
];

#[cfg(target_arch = "x86_64")]
const FORBIDDEN_OLD: &[c_long] = &[libc::SYS_open, libc::SYS_creat, libc::SYS_fork, libc::SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const FORBIDDEN_OLD: &[c_long] = &[];

/// What the driver of a GPU needs besides: its devices and libraries, and code that it makes for the device at hand.
#[rustfmt::skip] // by topic, not one to a line
const FOR_GPU: &[c_long] = &[
    libc::SYS_openat, libc::SYS_ioctl, libc::SYS_statx, libc::SYS_getdents64, libc::SYS_readlinkat, libc::SYS_faccessat,
    libc::SYS_faccessat2, libc::SYS_fstatfs, libc::SYS_statfs, libc::SYS_getcwd, libc::SYS_mmap, libc::SYS_mprotect,
    libc::SYS_mlock, libc::SYS_munlock, libc::SYS_mincore, libc::SYS_dup, libc::SYS_pipe2, libc::SYS_eventfd2,
    libc::SYS_epoll_create1, libc::SYS_epoll_ctl, libc::SYS_epoll_pwait, libc::SYS_pread64, libc::SYS_get_mempolicy,
    libc::SYS_set_mempolicy, libc::SYS_mbind, libc::SYS_memfd_create, libc::SYS_ftruncate,
];
#[cfg(target_arch = "x86_64")]
const FOR_GPU_OLD: &[c_long] =
    &[libc::SYS_open, libc::SYS_stat, libc::SYS_lstat, libc::SYS_access, libc::SYS_readlink, libc::SYS_epoll_wait];
#[cfg(not(target_arch = "x86_64"))]
const FOR_GPU_OLD: &[c_long] = &[];

pub(super) fn install(gpu: bool, report: &mut Report) {
    let installed = programs(gpu).map_err(|error| error.to_string()).and_then(|programs| {
        programs.iter().try_for_each(|program| seccompiler::apply_filter_all_threads(program)).map_err(|error| error.to_string())
    });
    report.note("seccomp", installed);
}

/// The programs in the order in which they are installed. The first lets the second through; the second lets none.
fn programs(gpu: bool) -> Result<[BpfProgram; 2], BackendError> {
    let arch = std::env::consts::ARCH.try_into()?;
    let errno = |code: i32| SeccompAction::Errno(code.cast_unsigned());
    // Both are compiled before the first is installed.
    Ok([
        SeccompFilter::new(allowed(gpu)?, errno(ENOSYS), SeccompAction::Allow, arch)?.try_into()?,
        SeccompFilter::new(forbidden(gpu)?, SeccompAction::Allow, errno(EPERM), arch)?.try_into()?,
    ])
}

fn allowed(gpu: bool) -> Result<Rules, BackendError> {
    let mut rules: Rules = ALLOWED.iter().chain(ALLOWED_OLD).map(|call| (*call, vec![])).collect();
    let own = u64::from(std::process::id());
    let thread = libc::CLONE_THREAD as u64;
    // No new code: what is executable was mapped before the walls went up.
    rules.insert(libc::SYS_mmap, vec![rule(2, Dword, MaskedEq(PROT_EXEC as u64), 0)?]);
    rules.insert(libc::SYS_mprotect, vec![rule(2, Dword, MaskedEq(PROT_EXEC as u64), 0)?]);
    // Threads, not processes. `clone3` hides its flags from filters and is absent, so the C library uses `clone`.
    rules.insert(libc::SYS_clone, vec![rule(0, Qword, MaskedEq(thread), thread)?]);
    // `abort` signals itself.
    rules.insert(libc::SYS_tgkill, vec![rule(0, Dword, Eq, own)?]);
    rules.insert(libc::SYS_prlimit64, vec![rule(0, Dword, Eq, 0)?, rule(0, Dword, Eq, own)?]);
    // For the second filter, which then forbids it.
    rules.insert(libc::SYS_seccomp, vec![]);
    let named = [libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_SET_VMA, libc::PR_SET_NO_NEW_PRIVS];
    rules.insert(libc::SYS_prctl, named.into_iter().map(|option| rule(0, Dword, Eq, option as u64)).collect::<Result<_, _>>()?);
    if gpu {
        rules.extend(FOR_GPU.iter().chain(FOR_GPU_OLD).map(|call| (*call, vec![])));
    }
    Ok(rules)
}

fn forbidden(gpu: bool) -> Result<Rules, BackendError> {
    let mut rules: Rules = FORBIDDEN.iter().chain(FORBIDDEN_OLD).map(|call| (*call, vec![])).collect();
    rules.insert(libc::SYS_clone, vec![rule(0, Qword, MaskedEq(libc::CLONE_THREAD as u64), 0)?]);
    rules.insert(libc::SYS_mmap, vec![rule(2, Dword, MaskedEq(PROT_EXEC as u64), PROT_EXEC as u64)?]);
    rules.insert(libc::SYS_mprotect, vec![rule(2, Dword, MaskedEq(PROT_EXEC as u64), PROT_EXEC as u64)?]);
    if gpu {
        rules.retain(|call, _| !FOR_GPU.contains(call) && !FOR_GPU_OLD.contains(call));
    }
    Ok(rules)
}

fn rule(
    argument: u8,
    length: seccompiler::SeccompCmpArgLen,
    operator: seccompiler::SeccompCmpOp,
    value: u64,
) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, length, operator, value)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_compile_and_do_not_contradict_each_other() {
        for gpu in [false, true] {
            assert!(programs(gpu).is_ok());
            let mut allowed = allowed(gpu).unwrap();
            allowed.remove(&libc::SYS_seccomp);
            for (call, rules) in forbidden(gpu).unwrap() {
                let free = allowed.get(&call).is_some_and(Vec::is_empty);
                assert!(!free && (rules.is_empty() != allowed.contains_key(&call)), "call {call} is both");
            }
        }
    }
}
