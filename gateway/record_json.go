package gateway

import (
	"encoding/json"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// appendJSON appends r as json.Marshal writes it. There is one record for each request, so that reflection would be one of the
// dearest things done for it.
func (r *Record) appendJSON(b []byte) []byte {
	b = append(b, `{"time":"`...)
	b = r.Time.AppendFormat(b, time.RFC3339Nano)
	b = append(b, '"')
	b = appendText(b, "type", string(r.Type), true)
	b = appendText(b, "id", r.ID, true)
	b = appendText(b, "flow", r.Flow, false)
	b = appendText(b, "bottle", r.Bottle, true)
	b = appendText(b, "plan", r.Plan, false)
	b = appendAddr(b, "src", r.Src)
	b = appendAddr(b, "dst", r.Dst)
	b = appendText(b, "host", r.Host, false)
	b = appendNumber(b, "port", int64(r.Port), false)
	b = appendText(b, "protocol", string(r.Protocol), false)
	b = appendText(b, "method", r.Method, false)
	b = appendText(b, "path", r.Path, false)
	b = appendNumber(b, "status", int64(r.Status), false)
	b = appendText(b, "decision", r.Decision.String(), true)
	b = appendText(b, "lane", string(r.Lane), true)
	b = appendText(b, "rule", r.Rule, false)
	b = appendText(b, "reason", string(r.Reason), false)
	b = appendText(b, "remedy", r.Remedy, false)
	if r.Injected {
		b = append(b, `,"injected":true`...)
	}
	b = appendText(b, "finding", r.Finding, false)
	b = appendAddr(b, "upstream", r.Upstream)
	b = appendText(b, "tls_version", r.TLSVersion, false)
	b = appendText(b, "alpn", r.ALPN, false)
	b = appendNumber(b, "bytes_up", r.BytesUp, true)
	b = appendNumber(b, "bytes_down", r.BytesDown, true)
	b = appendNumber(b, "packets_up", r.PacketsUp, false)
	b = appendNumber(b, "packets_down", r.PacketsDown, false)
	b = appendNumber(b, "duration_ms", r.DurationMS, true)
	if r.Count != 0 {
		b = strconv.AppendUint(append(b, `,"count":`...), r.Count, 10)
	}
	b = appendText(b, "error", r.Error, false)
	return append(b, '}')
}

// appendName appends a member's name, behind another member.
func appendName(b []byte, name string) []byte {
	return append(append(append(b, `,"`...), name...), `":`...)
}

// appendText appends a member that is text; an empty one only if always says so.
func appendText(b []byte, name, s string, always bool) []byte {
	if s == "" && !always {
		return b
	}
	b = appendName(b, name)
	if !plainText(s) {
		quoted, _ := json.Marshal(s) // of a string, it does not fail
		return append(b, quoted...)
	}
	return append(append(append(b, '"'), s...), '"')
}

// plainText reports whether s is ASCII that encoding/json leaves as it is.
func plainText(s string) bool {
	for i := range len(s) {
		if !plainBytes[s[i]] {
			return false
		}
	}
	return true
}

// plainBytes are those of a plain text.
var plainBytes = func() (plain [256]bool) {
	for c := ' '; c <= '~'; c++ {
		plain[c] = !strings.ContainsRune(`"\<>&`, c)
	}
	return plain
}()

// appendNumber appends a member that is a number; 0 only if always says so.
func appendNumber(b []byte, name string, n int64, always bool) []byte {
	if n == 0 && !always {
		return b
	}
	return strconv.AppendInt(appendName(b, name), n, 10)
}

// appendAddr appends a member that is an address and port, unless it is the zero value.
func appendAddr(b []byte, name string, a netip.AddrPort) []byte {
	if a == (netip.AddrPort{}) {
		return b
	}
	b = append(appendName(b, name), '"')
	return append(a.AppendTo(b), '"')
}
