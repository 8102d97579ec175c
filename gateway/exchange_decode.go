package gateway

import (
	"net/http"
	"strings"

	"gatewayd/gateway/coding"
)

// limitEncodings takes every coding out of Accept-Encoding that package coding does not know. Without the field a server may choose
// any coding (RFC 9110 section 12.5.3), so one that allows none is set.
func limitEncodings(h http.Header) {
	var kept []string
	for _, v := range h["Accept-Encoding"] {
		for element := range strings.SplitSeq(v, ",") {
			element = strings.TrimSpace(element)
			name, _, _ := strings.Cut(element, ";")
			if name = strings.ToLower(strings.TrimSpace(name)); coding.Known(name) || name == "identity" {
				kept = append(kept, element)
			}
		}
	}
	if len(kept) == 0 {
		kept = []string{"identity"}
	}
	h["Accept-Encoding"] = []string{strings.Join(kept, ", ")}
}
