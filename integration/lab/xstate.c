/*
 * Preloaded into User Mode Linux, so that it runs on processors with AMX.
 *
 * UML keeps its processes' FPU registers in a buffer of 2696 bytes, which was
 * the whole of a processor's state when it was written, and gives that many
 * back with PTRACE_SETREGSET. The kernel takes all of the state or nothing
 * (EFAULT), and AMX raised "all" to 11 KiB. So what UML gives is padded: the
 * state's own header says which parts are in use, and the guest never uses
 * those that UML does not know.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static char state[65536];

long ptrace(enum __ptrace_request request, ...)
{
	va_list ap;
	va_start(ap, request);
	long pid = va_arg(ap, long);
	void *addr = va_arg(ap, void *);
	void *data = va_arg(ap, void *);
	va_end(ap);

	/* glibc's contract: a peek returns the word that it read. */
	if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER) {
		long word;
		long r = syscall(SYS_ptrace, request, pid, addr, &word);
		return r < 0 ? r : word;
	}
	if (request == PTRACE_SETREGSET && (long)addr == NT_X86_XSTATE) {
		static size_t full; /* of this processor; a constant once known */
		struct iovec *given = data;
		if (full == 0) {
			struct iovec all = { state, sizeof state };
			if (syscall(SYS_ptrace, PTRACE_GETREGSET, pid, addr, &all) < 0)
				return -1;
			full = all.iov_len;
			memset(state, 0, sizeof state);
		}
		if (given->iov_len < full) {
			struct iovec all = { state, full };
			memcpy(state, given->iov_base, given->iov_len);
			return syscall(SYS_ptrace, request, pid, addr, &all);
		}
	}
	return syscall(SYS_ptrace, request, pid, addr, data);
}
