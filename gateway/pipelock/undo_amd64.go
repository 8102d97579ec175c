package pipelock

import features "golang.org/x/sys/cpu"

// hasUndo64 tells whether the processor can do what undo64 asks of it.
var hasUndo64 = features.X86.HasAVX2 && features.X86.HasBMI1 && features.X86.HasBMI2 && features.X86.HasPOPCNT

// undo64 undoes the escapes that a block begins with, where none before it goes on in it: n bytes, of which those in dropped are
// not in text, all but the last of each escape. It writes all of text. n is 0 where this is left to undoBlock. long has a bit for
// each 'u' of an escape of six bytes or more: its last digit is in text, in place of what it stands for. tells says, if it is not
// 0, that another escape was undone for a byte that matters.
//
//go:noescape
func undo64(text, written *[blockSize]byte, t *shortTable) (dropped, long, tells uint64, n int)
