# The memory functions that compiled code calls by name when there is no C
# library. AT&T syntax, System V calling convention.
#
# SSE2 only, which every x86_64 has: `rep movsb` needs ERMS to be quick, and
# machines in need of rescue are old. Short lengths are served by moves that
# overlap instead of loops. Each path loads what it must keep before it
# stores, so memcpy may be memmove.

    .section .text.e2wire_memmove, "ax", @progbits
    .globl  e2wire_memmove
    .type   e2wire_memmove, @function
    .p2align 5
# void *e2wire_memmove(void *target, const void *source, size_t length)
e2wire_memmove:
    movq    %rdi, %rax
    cmpq    $16, %rdx
    jb      .Lmove_below_16
    cmpq    $32, %rdx
    ja      .Lmove_above_32
    movups  (%rsi), %xmm0
    movups  -16(%rsi,%rdx), %xmm1
    movups  %xmm0, (%rdi)
    movups  %xmm1, -16(%rdi,%rdx)
    ret
.Lmove_above_32:
    cmpq    $64, %rdx
    ja      .Lmove_above_64
    movups  (%rsi), %xmm0
    movups  16(%rsi), %xmm1
    movups  -32(%rsi,%rdx), %xmm2
    movups  -16(%rsi,%rdx), %xmm3
    movups  %xmm0, (%rdi)
    movups  %xmm1, 16(%rdi)
    movups  %xmm2, -32(%rdi,%rdx)
    movups  %xmm3, -16(%rdi,%rdx)
    ret
.Lmove_below_16:
    cmpl    $8, %edx
    jb      .Lmove_below_8
    movq    (%rsi), %rcx
    movq    -8(%rsi,%rdx), %r8
    movq    %rcx, (%rdi)
    movq    %r8, -8(%rdi,%rdx)
    ret
.Lmove_below_8:
    cmpl    $4, %edx
    jb      .Lmove_below_4
    movl    (%rsi), %ecx
    movl    -4(%rsi,%rdx), %r8d
    movl    %ecx, (%rdi)
    movl    %r8d, -4(%rdi,%rdx)
    ret
.Lmove_below_4:
    # First, middle and last byte; they may be the same.
    testl   %edx, %edx
    jz      .Lmove_done
    movq    %rdx, %r11
    shrq    $1, %r11
    movb    (%rsi), %cl
    movb    (%rsi,%r11), %r8b
    movb    -1(%rsi,%rdx), %r9b
    movb    %cl, (%rdi)
    movb    %r8b, (%rdi,%r11)
    movb    %r9b, -1(%rdi,%rdx)
.Lmove_done:
    ret
.Lmove_above_64:
    # Backward when the target starts inside the source.
    movq    %rdi, %rcx
    subq    %rsi, %rcx
    cmpq    %rdx, %rcx
    jb      .Lmove_backward
    # The last 64 bytes are loaded first and stored last, so that the loop
    # needs no remainder.
    movups  -64(%rsi,%rdx), %xmm4
    movups  -48(%rsi,%rdx), %xmm5
    movups  -32(%rsi,%rdx), %xmm6
    movups  -16(%rsi,%rdx), %xmm7
    leaq    -64(%rdi,%rdx), %r8
    .p2align 4
1:  movups  (%rsi), %xmm0
    movups  16(%rsi), %xmm1
    movups  32(%rsi), %xmm2
    movups  48(%rsi), %xmm3
    movups  %xmm0, (%rdi)
    movups  %xmm1, 16(%rdi)
    movups  %xmm2, 32(%rdi)
    movups  %xmm3, 48(%rdi)
    addq    $64, %rsi
    addq    $64, %rdi
    cmpq    %r8, %rdi
    jb      1b
    movups  %xmm4, (%r8)
    movups  %xmm5, 16(%r8)
    movups  %xmm6, 32(%r8)
    movups  %xmm7, 48(%r8)
    ret
.Lmove_backward:
    movups  (%rsi), %xmm4
    movups  16(%rsi), %xmm5
    movups  32(%rsi), %xmm6
    movups  48(%rsi), %xmm7
    leaq    64(%rdi), %r8
    addq    %rdx, %rsi
    addq    %rdx, %rdi
    .p2align 4
2:  movups  -64(%rsi), %xmm0
    movups  -48(%rsi), %xmm1
    movups  -32(%rsi), %xmm2
    movups  -16(%rsi), %xmm3
    movups  %xmm0, -64(%rdi)
    movups  %xmm1, -48(%rdi)
    movups  %xmm2, -32(%rdi)
    movups  %xmm3, -16(%rdi)
    subq    $64, %rsi
    subq    $64, %rdi
    cmpq    %r8, %rdi
    ja      2b
    movups  %xmm4, (%rax)
    movups  %xmm5, 16(%rax)
    movups  %xmm6, 32(%rax)
    movups  %xmm7, 48(%rax)
    ret
    .size   e2wire_memmove, . - e2wire_memmove

    .section .text.e2wire_memset, "ax", @progbits
    .globl  e2wire_memset
    .type   e2wire_memset, @function
    .p2align 5
# void *e2wire_memset(void *target, int byte, size_t length)
e2wire_memset:
    movq    %rdi, %rax
    movzbl  %sil, %ecx
    movabsq $0x0101010101010101, %r8
    imulq   %r8, %rcx
    cmpq    $16, %rdx
    jb      .Lset_below_16
    movq    %rcx, %xmm0
    punpcklqdq %xmm0, %xmm0
    leaq    -16(%rdi,%rdx), %r8
    movups  %xmm0, (%rdi)
    cmpq    $64, %rdx
    jb      3f
    leaq    -64(%rdi,%rdx), %r9
    .p2align 4
1:  movups  %xmm0, (%rdi)
    movups  %xmm0, 16(%rdi)
    movups  %xmm0, 32(%rdi)
    movups  %xmm0, 48(%rdi)
    addq    $64, %rdi
    cmpq    %r9, %rdi
    jbe     1b
3:  # At most 63 bytes are left (and the first 16 may be done already).
    cmpq    %r8, %rdi
    jae     4f
    movups  %xmm0, (%rdi)
    addq    $16, %rdi
    jmp     3b
4:  movups  %xmm0, (%r8)
    ret
.Lset_below_16:
    cmpl    $8, %edx
    jb      .Lset_below_8
    movq    %rcx, (%rdi)
    movq    %rcx, -8(%rdi,%rdx)
    ret
.Lset_below_8:
    cmpl    $4, %edx
    jb      .Lset_below_4
    movl    %ecx, (%rdi)
    movl    %ecx, -4(%rdi,%rdx)
    ret
.Lset_below_4:
    testl   %edx, %edx
    jz      5f
    movb    %cl, (%rdi)
    movb    %cl, -1(%rdi,%rdx)
    shrl    $1, %edx
    movb    %cl, (%rdi,%rdx)
5:  ret
    .size   e2wire_memset, . - e2wire_memset

    .section .text.e2wire_memcmp, "ax", @progbits
    .globl  e2wire_memcmp
    .type   e2wire_memcmp, @function
    .p2align 5
# int e2wire_memcmp(const void *left, const void *right, size_t length)
e2wire_memcmp:
    xorl    %ecx, %ecx
1:  leaq    16(%rcx), %r8
    cmpq    %rdx, %r8
    ja      2f
    movups  (%rdi,%rcx), %xmm0
    movups  (%rsi,%rcx), %xmm1
    pcmpeqb %xmm1, %xmm0
    pmovmskb %xmm0, %eax
    xorl    $0xffff, %eax
    jnz     3f
    movq    %r8, %rcx
    jmp     1b
2:  cmpq    %rdx, %rcx
    jae     4f
    movzbl  (%rdi,%rcx), %eax
    movzbl  (%rsi,%rcx), %r9d
    incq    %rcx
    subl    %r9d, %eax
    jz      2b
    ret
3:  bsfl    %eax, %eax
    addq    %rax, %rcx
    movzbl  (%rdi,%rcx), %eax
    movzbl  (%rsi,%rcx), %r9d
    subl    %r9d, %eax
    ret
4:  xorl    %eax, %eax
    ret
    .size   e2wire_memcmp, . - e2wire_memcmp

    .section .text.e2wire_strlen, "ax", @progbits
    .globl  e2wire_strlen
    .type   e2wire_strlen, @function
# size_t e2wire_strlen(const char *text): only ever sees short names.
e2wire_strlen:
    xorl    %eax, %eax
1:  cmpb    $0, (%rdi,%rax)
    je      2f
    incq    %rax
    jmp     1b
2:  ret
    .size   e2wire_strlen, . - e2wire_strlen
