package formats

// walk is walkInGo, which has not enough registers for so many lanes here.
//
//go:noescape
func walk(text *[lanes * lane]byte, next *table, class *[256]uint8, i uint, states *[lanes]uint, h *hits, begin *[lanes]hit)
