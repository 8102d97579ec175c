package daemon

import (
	"net"
	"os"
)

// notify tells the service manager about a change of state, where there is one (sd_notify(3): one datagram to the socket
// that NOTIFY_SOCKET names). Nothing depends on its arrival.
func notify(state string) {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"}) // a leading '@' is an abstract name to net too
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = c.Write([]byte(state)) // a manager that does not listen will find out otherwise
}
