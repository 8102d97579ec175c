package redirect

import (
	"maps"
	"slices"
	"testing"
)

// TestFastPathJudgesSecondHellos lets each recorded hello be followed by a second one, as after a HelloRetryRequest, with and
// without change_cipher_spec before it, cut at every offset: the same name goes on, another one that may be called here as
// well is refused, wherever the cut is.
func TestFastPathJudgesSecondHellos(t *testing.T) {
	h := newJudgeHarness(t)
	all := make(map[string][]byte)
	for file, stream := range corpus(t) {
		hello := firstRecord(stream)
		name, _ := strict(hello)
		if name == "" {
			t.Fatalf("%s: the other parser reads no name", file)
		}
		h.allowBy(name, uint32(2+len(all)))
		if got, _ := h.judge(hello, 1400); got == name { // not what offers early data
			all[file] = hello
		}
	}
	runs := 0
	files := slices.Sorted(maps.Keys(all))
	for i, file := range files {
		other := files[(i+1)%len(files)]
		if a, _ := strict(all[file]); a == nameOf(all[other]) {
			other = files[(i+2)%len(files)]
		}
		for _, between := range [][]byte{nil, {20, 3, 3, 0, 1, 1}} {
			same := slices.Concat(all[file], between, all[file])
			changed := slices.Concat(all[file], between, all[other])
			for at := len(all[file]); at < len(same); at++ {
				if name, state := h.judgeCut(same, at); name != nameOf(all[file]) {
					t.Fatalf("%s and itself, cut at %d: %q, state %d, %v", file, at, name, state, FastReason(h.flow().Reason))
				}
				runs++
			}
			for at := len(all[file]); at < len(changed); at++ {
				if _, state := h.judgeCut(changed, at); state != gatewayFlowStateFLOW_REFUSED {
					t.Fatalf("%s and %s, cut at %d: state %d", file, other, at, state)
				}
				runs++
			}
		}
	}
	t.Logf("%d streams", runs)
}

// allowBy pins a name by a permission of its own, as each has.
func (h *judgeHarness) allowBy(name string, grant uint32) {
	k := gatewayPinKey{Ifindex: loopbackIndex, Daddr: h.key.Daddr, Dport: h.key.Dport, NameLen: uint16(len(name))}
	copy(k.Name[:], name)
	must(h.t, h.objects.Grants.Put(grant, uint64(7)))
	must(h.t, h.objects.Pins.Put(k, gatewayPin{Expires: 1 << 62, Epoch: 7, Grant: grant}))
}

func nameOf(hello []byte) string {
	name, _ := strict(hello)
	return name
}

// judgeCut feeds a stream in two segments, or more where one would be too large for a frame.
func (h *judgeHarness) judgeCut(stream []byte, cut int) (string, gatewayFlowState) {
	h.begin()
	for _, part := range [][2]int{{0, cut}, {cut, len(stream)}} {
		for at := part[0]; at < part[1]; at += 1400 {
			h.data(at, stream[at:min(at+1400, part[1])])
		}
	}
	f := h.flow()
	return h.judged(&f), gatewayFlowState(f.State)
}
