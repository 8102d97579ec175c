package daemon

import (
	"bufio"
	"bytes"
	"os"
	"strings"
)

// DefaultUplink names the interface of this network namespace's IPv4 default route with the lowest metric; "" if there is
// none.
func DefaultUplink() string {
	text, err := os.ReadFile("/proc/self/net/route")
	if err != nil {
		return ""
	}
	return defaultUplink(text)
}

// defaultUplink reads the table of net/ipv4/fib_trie.c fib_route_seq_show: Iface, Destination, Gateway, Flags, RefCnt, Use,
// Metric, Mask, in hexadecimal but for the counters and the metric, sorted by destination and then by metric.
func defaultUplink(text []byte) string {
	for sc := bufio.NewScanner(bytes.NewReader(text)); sc.Scan(); {
		f := strings.Fields(sc.Text())
		if len(f) >= 8 && f[1] == "00000000" && f[7] == "00000000" {
			return f[0]
		}
	}
	return ""
}
