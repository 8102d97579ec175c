#include "go_asm.h"
#include "textflag.h"

#define LANE const_lane

// One step of lane l: its state becomes the one behind byte CX of it.
#define STEP(l, state) \
	MOVBLZX (l*LANE)(DI)(CX*1), AX \
	MOVBLZX (DX)(AX*1), AX         \
	ADDQ    AX, state              \
	MOVWLZX (SI)(state*2), state

// Adds lane l's state to the hits of BX, if it accepts: see hits.add. DI is the end, SI where lanes begin.
#define ADD(l, state) \
	MOVQ (hits_n+8*l)(BX), AX          \
	MOVL (4*l)(SI), DX                 \
	ADDL DI, DX                        \
	ORL  state, DX                     \
	MOVL DX, (4*LANE*l)(BX)(AX*4)      \
	MOVL state, DX                     \
	SHRL $15, DX                       \
	ADDQ DX, AX                        \
	MOVQ AX, (hits_n+8*l)(BX)

// func walk(text *[lanes * lane]byte, next *table, class *[256]uint8, i uint, states *[lanes]uint, h *hits, begin *[lanes]hit)
TEXT ·walk(SB), NOSPLIT, $0-56
	MOVQ states+32(FP), AX
	MOVQ 0(AX), R8
	MOVQ 8(AX), R9
	MOVQ 16(AX), R10
	MOVQ 24(AX), R11
	MOVQ 32(AX), R12
	MOVQ 40(AX), R13
	MOVQ 48(AX), R14
	MOVQ 56(AX), R15
	MOVQ i+24(FP), CX
	MOVQ text+0(FP), DI
	MOVQ next+8(FP), SI
	MOVQ class+16(FP), DX

step:
	STEP(0, R8)
	MOVL R8, BX
	STEP(1, R9)
	ORL  R9, BX
	STEP(2, R10)
	ORL  R10, BX
	STEP(3, R11)
	ORL  R11, BX
	STEP(4, R12)
	ORL  R12, BX
	STEP(5, R13)
	ORL  R13, BX
	STEP(6, R14)
	ORL  R14, BX
	STEP(7, R15)
	ORL  R15, BX
	INCQ CX
	TESTL $const_accepts, BX
	JNZ  add

next:
	CMPQ CX, $LANE
	JLT  step

	MOVQ states+32(FP), AX
	MOVQ R8, 0(AX)
	MOVQ R9, 8(AX)
	MOVQ R10, 16(AX)
	MOVQ R11, 24(AX)
	MOVQ R12, 32(AX)
	MOVQ R13, 40(AX)
	MOVQ R14, 48(AX)
	MOVQ R15, 56(AX)
	RET

add:
	MOVQ h+40(FP), BX
	MOVQ begin+48(FP), SI
	MOVL CX, DI
	SHLL $16, DI
	ADD(0, R8)
	ADD(1, R9)
	ADD(2, R10)
	ADD(3, R11)
	ADD(4, R12)
	ADD(5, R13)
	ADD(6, R14)
	ADD(7, R15)
	MOVQ text+0(FP), DI
	MOVQ next+8(FP), SI
	MOVQ class+16(FP), DX
	JMP  next
