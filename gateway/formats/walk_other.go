//go:build !amd64

package formats

// walk is walkInGo.
func walk(text *[lanes * lane]byte, next *table, class *[256]uint8, i uint, states *[lanes]uint, h *hits, begin *[lanes]hit) {
	walkInGo(text, next, class, i, states, h, begin)
}
