package http1

import "net"

// recordBytes is what one TLS record holds (RFC 8446 section 5.1).
const recordBytes = 16 << 10

// gatherer is what lies beneath a TLS connection and can take the records of several writes together.
type gatherer interface {
	Gather(write func() error) error
}

// gather has all that write writes to conn leave in one system call where conn can.
func gather(conn net.Conn, write func() error) error {
	if c, ok := conn.(interface{ NetConn() net.Conn }); ok {
		if g, ok := c.NetConn().(gatherer); ok {
			return g.Gather(write)
		}
	}
	return write()
}

// writeAll writes p to conn, the records of a large one together.
func writeAll(conn net.Conn, p []byte) error {
	if len(p) > recordBytes {
		return gather(conn, func() error { return write(conn, p) })
	}
	return write(conn, p)
}

// write writes p to conn.
func write(conn net.Conn, p []byte) error {
	_, err := conn.Write(p)
	return err
}
