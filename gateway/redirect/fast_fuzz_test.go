package redirect

import "testing"

// FuzzFastPathHello gives the judge in the kernel and the parser of the other lanes the same stream, in segments of any size:
// what the first lets through, the second reads with the same name.
func FuzzFastPathHello(f *testing.F) {
	h := newJudgeHarness(f)
	for _, stream := range corpus(f) {
		hello := firstRecord(stream)
		if name, _ := strict(hello); h.allow(name) {
			f.Add(hello, uint16(1400))
			f.Add(hello, uint16(100))
		}
	}
	f.Fuzz(func(t *testing.T, stream []byte, size uint16) {
		h.t = t
		if len(stream) > 1<<15 {
			return
		}
		if got, _ := h.judge(stream, 1+int(size)%1400); got != "" {
			if want, _ := strict(stream); got != want {
				t.Fatalf("let through as %q, which the other parser reads as %q", got, want)
			}
		}
	})
}
