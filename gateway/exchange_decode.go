package gateway

import (
	"net/http"
	"strings"

	"gatewayd/gateway/coding"
)

// noEncodings allows no coding. Nobody changes it.
var noEncodings = []string{"identity"}

// limitEncodings takes every coding out of Accept-Encoding that package coding does not know. Without the field a server may choose
// any coding (RFC 9110 section 12.5.3), so one that allows none is set.
func limitEncodings(h http.Header) {
	if len(h["Accept-Encoding"]) == 0 {
		h["Accept-Encoding"] = noEncodings[:1:1]
		return
	}
	if v := h["Accept-Encoding"]; len(v) == 1 && (v[0] == "gzip" || v[0] == "gzip, deflate" || v[0] == "gzip, deflate, br" || v[0] == "gzip, deflate, br, zstd") {
		return // as most clients have it
	}
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
		kept = noEncodings
	}
	h["Accept-Encoding"] = []string{strings.Join(kept, ", ")}
}
