# The entry point of the freestanding agent and the start of a worker.
# AT&T syntax, System V calling convention; included by bare.rs, which names
# the operands in braces.

    .section .text.e2wire_start, "ax", @progbits
    .globl  _start
    .type   _start, @function
# The kernel's own stack stays where it is: it holds arguments and
# environment. Everything runs on ours, of known size, with a guard page.
_start:
    xorl    %ebp, %ebp
    movq    %rsp, %rdi
    leaq    {stack}(%rip), %rsp
    addq    ${stack_size}, %rsp
    andq    $-16, %rsp
    call    {entry}
    ud2
    .size   _start, . - _start

    .section .text.e2wire_clone, "ax", @progbits
    .globl  e2wire_clone
    .type   e2wire_clone, @function
# isize e2wire_clone(flags, stack_top, run, argument): the thread's id or a
# negative error number for the caller. The new thread calls run(argument)
# on its own stack and ends if that ever returns.
e2wire_clone:
    movq    %rdx, %r8
    movq    %rcx, %r9
    andq    $-16, %rsi
    xorl    %edx, %edx
    xorl    %r10d, %r10d
    movl    $56, %eax
    syscall
    testq   %rax, %rax
    jz      1f
    ret
1:  xorl    %ebp, %ebp
    movq    %r9, %rdi
    call    *%r8
    xorl    %edi, %edi
    movl    $60, %eax
    syscall
    ud2
    .size   e2wire_clone, . - e2wire_clone
