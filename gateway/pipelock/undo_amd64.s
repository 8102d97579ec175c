#include "go_asm.h"
#include "textflag.h"

DATA backslash<>+0(SB)/1, $0x5c
GLOBL backslash<>(SB), RODATA|NOPTR, $1

DATA letterU<>+0(SB)/1, $0x75
GLOBL letterU<>(SB), RODATA|NOPTR, $1

DATA half<>+0(SB)/1, $0x0f
GLOBL half<>(SB), RODATA|NOPTR, $1

DATA ascii<>+0(SB)/1, $0x7f
GLOBL ascii<>(SB), RODATA|NOPTR, $1

// A byte is a hexadecimal digit if the entries of its lower half in hexLow and of its upper half in hexHigh have a bit in common.
DATA hexLow<>+0(SB)/8, $0x0103030303030301
DATA hexLow<>+8(SB)/8, $0x0000000000000101
GLOBL hexLow<>(SB), RODATA|NOPTR, $16

DATA hexHigh<>+0(SB)/8, $0x0002000201000000
DATA hexHigh<>+8(SB)/8, $0
GLOBL hexHigh<>(SB), RODATA|NOPTR, $16

// What the lower half of a byte is changed by, for its upper half, so that it tells the keys of a shortTable apart.
DATA spread<>+0(SB)/8, $0x0108000000000000
DATA spread<>+8(SB)/8, $0
GLOBL spread<>(SB), RODATA|NOPTR, $16

// What makes of places in a word those in the second word of two.
DATA second<>+0(SB)/8, $0
DATA second<>+8(SB)/8, $0x0808080808080808
GLOBL second<>(SB), RODATA|NOPTR, $16

// Of the 32 bytes in text, of which before has 0xff behind backslashes: a bit for each hexadecimal digit, for each short escape's
// letter, for each of those that tells, and for each 'u' that follows a backslash. text gets what the short escapes stand for.
#define LETTERS(text, before, digits, shorts, tells, long) \
	VPBROADCASTB   half<>(SB), Y7                             \
	VPSRLW         $4, text, Y8                               \
	VPAND          Y7, Y8, Y8                                 \
	VBROADCASTI128 hexLow<>(SB), Y9                           \
	VBROADCASTI128 hexHigh<>(SB), Y10                         \
	VPSHUFB        text, Y9, Y9                               \
	VPSHUFB        Y8, Y10, Y10                               \
	VPAND          Y9, Y10, Y9                                \
	VPXOR          Y10, Y10, Y10                              \
	VPCMPEQB       Y10, Y9, Y9                                \
	VPMOVMSKB      Y9, digits                                 \
	NOTL           digits                                     \
	VPBROADCASTB   letterU<>(SB), Y9                          \
	VPCMPEQB       text, Y9, Y9                               \
	VPAND          before, Y9, Y9                             \
	VPMOVMSKB      Y9, long                                   \
	VBROADCASTI128 spread<>(SB), Y9                           \
	VPSHUFB        Y8, Y9, Y9                                 \
	VPXOR          text, Y9, Y9                               \
	VBROADCASTI128 shortTable_keys(DX), Y10                   \
	VBROADCASTI128 shortTable_values(DX), Y11                 \
	VPSHUFB        Y9, Y10, Y10                               \
	VPSHUFB        Y9, Y11, Y11                               \
	VPCMPEQB       text, Y10, Y10                             \
	VPAND          before, Y10, Y10                           \
	VPMOVMSKB      Y10, shorts                                \
	VPAND          Y10, Y11, Y11                              \
	VPMOVMSKB      Y11, tells                                 \
	VPANDN         text, Y10, Y10                             \
	VPBROADCASTB   ascii<>(SB), Y9                            \
	VPAND          Y9, Y11, Y11                               \
	VPOR           Y10, Y11, text

// both halves of a mask in one.
#define JOIN(low, high) \
	SHLQ $32, high         \
	ORQ  high, low

// Writes the 16 bytes in text without those for which the lowest bits of R8 say that they go, from at on, of what DI is behind
// by what went before.
#define PACK(text, at)       \
	MOVBLZX R8, AX              \
	SHRQ    $8, R8              \
	MOVBLZX R8, BX              \
	SHRQ    $8, R8              \
	VMOVQ   (R12)(AX*8), X3     \
	VMOVHPS (R12)(BX*8), X3, X3 \
	VPADDB  X4, X3, X3          \
	VPSHUFB X3, text, X3        \
	VMOVQ   X3, at(DI)          \
	POPCNTL AX, AX              \
	SUBQ    AX, DI              \
	VMOVHPS X3, at+8(DI)        \
	POPCNTL BX, BX              \
	SUBQ    BX, DI

// func undo64(text, written *[blockSize]byte, t *shortTable) (dropped, long uint64, tells uint64, n int)
TEXT ·undo64(SB), NOSPLIT, $0-56
	MOVQ text+0(FP), DI
	MOVQ written+8(FP), SI
	MOVQ t+16(FP), DX

	VMOVDQU      (SI), Y0
	VMOVDQU      32(SI), Y1
	VPBROADCASTB backslash<>(SB), Y2
	VPCMPEQB     Y2, Y0, Y3
	VPCMPEQB     Y2, Y1, Y4
	VPMOVMSKB    Y3, R8
	VPMOVMSKB    Y4, R9
	JOIN(R8, R9)             // R8: backslashes

	// A run of eight of them is left to others: R11.
	MOVQ R8, R10
	SHRQ $1, R10
	ANDQ R8, R10
	MOVQ R10, R11
	SHRQ $2, R11
	ANDQ R10, R11
	MOVQ R11, R10
	SHRQ $4, R10
	ANDQ R10, R11
	JNZ  hard

	// The first run that begins at 52 or later may have its escape's end behind the block: the block ends before it, at R9.
	LEAQ  (R8)(R8*1), R9
	ANDNQ R8, R9, R9
	SHRQ  $52, R9
	ORQ   $(1<<12), R9
	BSFQ  R9, R9
	ADDQ  $52, R9
	MOVQ  R9, n+48(FP)
	BZHIQ R9, R8, R8

	// Bytes behind backslashes: Y5, Y6.
	VPERM2I128 $0x08, Y3, Y3, Y5
	VPALIGNR   $15, Y5, Y3, Y5
	VPERM2I128 $0x21, Y4, Y3, Y6
	VPALIGNR   $15, Y6, Y4, Y6

	LETTERS(Y0, Y5, R10, R11, R12, R13)
	LETTERS(Y1, Y6, AX, BX, CX, SI)
	JOIN(R10, AX)
	JOIN(R11, BX)
	JOIN(R12, CX)
	JOIN(R13, SI)
	BZHIQ R9, R11, R11
	BZHIQ R9, R12, R12
	BZHIQ R9, R13, R13

	// Of \u what is followed by four digits: R13.
	SHRQ $1, R10
	ANDQ R10, R13
	SHRQ $1, R10
	ANDQ R10, R13
	SHRQ $1, R10
	ANDQ R10, R13
	SHRQ $1, R10
	ANDQ R10, R13
	MOVQ R13, long+32(FP)

	// The last backslash of a run stays if no escape ends there: AX.
	ORQ   R13, R11
	SHRQ  $1, R11
	MOVQ  R8, AX
	SHRQ  $1, AX
	ANDNQ R8, AX, AX
	ANDNQ AX, R11, AX
	ANDNQ R8, AX, R8
	ANDQ  shortTable_backslash(DX), AX
	ORQ   AX, R12
	MOVQ  R12, tells+40(FP)

	// Of \uXXXX the last digit stays.
	LEAQ (R13)(R13*1), AX
	ORQ  R13, AX
	LEAQ (R8)(AX*1), R8  // the two have no bit in common
	SHLQ $2, AX
	ORQ  AX, R8
	MOVQ R8, dropped+24(FP)

	MOVQ         shortTable_packed(DX), R12
	VMOVDQU      second<>(SB), X4
	VEXTRACTI128 $1, Y0, X5
	VEXTRACTI128 $1, Y1, X6
	PACK(X0, 0)
	PACK(X5, 16)
	PACK(X1, 32)
	PACK(X6, 48)
	VZEROUPPER
	RET

hard:
	XORQ AX, AX
	MOVQ AX, dropped+24(FP)
	MOVQ AX, long+32(FP)
	MOVQ AX, tells+40(FP)
	MOVQ AX, n+48(FP)
	VZEROUPPER
	RET
