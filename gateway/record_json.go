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
	b = appendText(b, `,"type":"`, string(r.Type), true)
	b = appendText(b, `,"id":"`, r.ID, true)
	b = appendText(b, `,"flow":"`, r.Flow, false)
	b = appendText(b, `,"bottle":"`, r.Bottle, true)
	b = appendText(b, `,"plan":"`, r.Plan, false)
	b = appendAddr(b, `,"src":"`, r.Src)
	b = appendAddr(b, `,"dst":"`, r.Dst)
	b = appendText(b, `,"host":"`, r.Host, false)
	b = appendNumber(b, `,"port":`, int64(r.Port), false)
	b = appendText(b, `,"protocol":"`, string(r.Protocol), false)
	b = appendText(b, `,"method":"`, r.Method, false)
	b = appendText(b, `,"path":"`, r.Path, false)
	b = appendNumber(b, `,"status":`, int64(r.Status), false)
	b = appendText(b, `,"decision":"`, r.Decision.String(), true)
	b = appendText(b, `,"lane":"`, string(r.Lane), true)
	b = appendText(b, `,"rule":"`, r.Rule, false)
	b = appendText(b, `,"reason":"`, string(r.Reason), false)
	b = appendText(b, `,"remedy":"`, r.Remedy, false)
	if r.Injected {
		b = append(b, `,"injected":true`...)
	}
	b = appendText(b, `,"finding":"`, r.Finding, false)
	b = appendAddr(b, `,"upstream":"`, r.Upstream)
	b = appendText(b, `,"tls_version":"`, r.TLSVersion, false)
	b = appendText(b, `,"alpn":"`, r.ALPN, false)
	b = appendNumber(b, `,"bytes_up":`, r.BytesUp, true)
	b = appendNumber(b, `,"bytes_down":`, r.BytesDown, true)
	b = appendNumber(b, `,"packets_up":`, r.PacketsUp, false)
	b = appendNumber(b, `,"packets_down":`, r.PacketsDown, false)
	b = appendNumber(b, `,"duration_ms":`, r.DurationMS, true)
	if r.Count != 0 {
		b = strconv.AppendUint(append(b, `,"count":`...), r.Count, 10)
	}
	b = appendText(b, `,"error":"`, r.Error, false)
	return append(b, '}')
}

// appendText appends a member that is text, whose name and first quotation mark are in begin; an empty one only if always says so.
func appendText(b []byte, begin, s string, always bool) []byte {
	if s == "" && !always {
		return b
	}
	b = append(b, begin...)
	if !plainText(s) {
		quoted, _ := json.Marshal(s) // of a string, it does not fail
		return append(b, quoted[1:]...)
	}
	return append(append(b, s...), '"')
}

// plainText reports whether s is ASCII that encoding/json leaves as it is.
func plainText(s string) bool {
	plain := &plainBytes
	for ; len(s) >= 8; s = s[8:] { // without a branch for each
		if plain[s[0]]&plain[s[1]]&plain[s[2]]&plain[s[3]]&plain[s[4]]&plain[s[5]]&plain[s[6]]&plain[s[7]] == 0 {
			return false
		}
	}
	for i := range len(s) {
		if plain[s[i]] == 0 {
			return false
		}
	}
	return true
}

// plainBytes has 1 for those of a plain text, and else 0.
var plainBytes = func() (plain [256]uint8) {
	for c := ' '; c <= '~'; c++ {
		if !strings.ContainsRune(`"\<>&`, c) {
			plain[c] = 1
		}
	}
	return plain
}()

// appendNumber appends a member that is a number, whose name is in begin; 0 only if always says so.
func appendNumber(b []byte, begin string, n int64, always bool) []byte {
	if n == 0 && !always {
		return b
	}
	return strconv.AppendInt(append(b, begin...), n, 10)
}

// appendAddr appends a member that is an address and port, as appendText does, unless it is the zero value.
func appendAddr(b []byte, begin string, a netip.AddrPort) []byte {
	if a == (netip.AddrPort{}) {
		return b
	}
	return append(a.AppendTo(append(b, begin...)), '"')
}
