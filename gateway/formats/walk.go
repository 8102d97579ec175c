package formats

// walkInGo walks all lanes of text from byte i of each on, from their states to those behind them, and adds to h what accepts:
// begin has for each lane the hit that would be at its byte 0. A state plus a class is an index into next.
func walkInGo(text *[lanes * lane]byte, next *table, class *[256]uint8, i uint, states *[lanes]uint, h *hits, begin *[lanes]hit) {
	s0, s1, s2, s3, s4, s5, s6, s7 := states[0], states[1], states[2], states[3], states[4], states[5], states[6], states[7]
	for ; i < lane; i++ {
		s0 = uint(next[s0+uint(class[text[i]])])
		s1 = uint(next[s1+uint(class[text[i+lane]])])
		s2 = uint(next[s2+uint(class[text[i+2*lane]])])
		s3 = uint(next[s3+uint(class[text[i+3*lane]])])
		s4 = uint(next[s4+uint(class[text[i+4*lane]])])
		s5 = uint(next[s5+uint(class[text[i+5*lane]])])
		s6 = uint(next[s6+uint(class[text[i+6*lane]])])
		s7 = uint(next[s7+uint(class[text[i+7*lane]])])
		if (s0|s1|s2|s3|s4|s5|s6|s7)&accepts != 0 {
			h.add(i+1, &[lanes]uint{s0, s1, s2, s3, s4, s5, s6, s7}, begin)
		}
	}
	*states = [lanes]uint{s0, s1, s2, s3, s4, s5, s6, s7}
}

// add adds those states that accept, behind byte end-1 of each lane.
func (h *hits) add(end uint, states *[lanes]uint, begin *[lanes]hit) {
	for l, s := range states { // without a branch: which lane it was cannot be foretold
		h.at[l][h.n[l]%lane] = begin[l] + hit(end)<<16 | hit(s)
		h.n[l] += int(s / accepts)
	}
}
