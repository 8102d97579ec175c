#include "textflag.h"

// A byte is a character of base64 if the entries of its lower half in low and of its upper half in high have a bit in common.
// Bit 0 is for '+' '-' '/', 1 for digits, 2 for 'A' to 'O' and 'a' to 'o', 3 for 'P' to 'Z' and '_', 4 for 'p' to 'z'.
DATA low<>+0(SB)/8, $0x1e1e1e1e1e1e1e1a
DATA low<>+8(SB)/8, $0x0d040504051c1e1e // '/' and '_' in 15, '-' in 13, '+' in 11
GLOBL low<>(SB), RODATA|NOPTR, $16

DATA high<>+0(SB)/8, $0x1004080402010000
DATA high<>+8(SB)/8, $0
GLOBL high<>(SB), RODATA|NOPTR, $16

DATA half<>+0(SB)/8, $0x0f0f0f0f0f0f0f0f
GLOBL half<>(SB), RODATA|NOPTR, $8

// func longRun(text *byte, n int) int
TEXT ·longRun(SB), NOSPLIT, $0-24
	MOVQ           text+0(FP), SI
	MOVQ           n+8(FP), CX
	VBROADCASTI128 low<>(SB), Y0
	VBROADCASTI128 high<>(SB), Y1
	VPBROADCASTQ   half<>(SB), Y2
	VPXOR          Y3, Y3, Y3
	XORQ           AX, AX // of the block
	XORQ           DX, DX // what is a character: of the block before in the lower half, of this one in the upper

block:
	VMOVDQU   (SI)(AX*1), Y4
	VPSRLW    $4, Y4, Y5
	VPAND     Y2, Y5, Y5
	VPSHUFB   Y4, Y0, Y4 // 0 for what is not ASCII
	VPSHUFB   Y5, Y1, Y5
	VPAND     Y4, Y5, Y4
	VPCMPEQB  Y3, Y4, Y4
	VPMOVMSKB Y4, BX
	NOTL      BX
	SHLQ      $32, BX
	ORQ       BX, DX

	// Where 2, 4, 8, 16 and 24 of them begin that follow each other.
	MOVQ DX, R8
	SHRQ $1, R8
	ANDQ DX, R8
	MOVQ R8, R9
	SHRQ $2, R9
	ANDQ R8, R9
	MOVQ R9, R8
	SHRQ $4, R8
	ANDQ R9, R8
	MOVQ R8, R9
	SHRQ $8, R9
	ANDQ R8, R9
	SHRQ $16, R8
	ANDQ R8, R9
	JNZ  found

	SHRQ $32, DX
	ADDQ $32, AX
	CMPQ AX, CX
	JLT  block
	MOVQ $-1, ret+16(FP)
	VZEROUPPER
	RET

found:
	BSFQ R9, R9
	LEAQ -32(AX)(R9*1), AX
	MOVQ AX, ret+16(FP)
	VZEROUPPER
	RET
