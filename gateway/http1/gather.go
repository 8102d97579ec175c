package http1

import "net"

// recordBytes is what one TLS record holds (RFC 8446 section 5.1).
const recordBytes = 16 << 10

// gatherer is what lies beneath a TLS connection and can take the records of a write together.
type gatherer interface {
	Gather(write func() error) error
}

// writeAll writes p to conn, in one system call for several records where conn can.
func writeAll(conn net.Conn, p []byte) error {
	if len(p) > recordBytes {
		if c, ok := conn.(interface{ NetConn() net.Conn }); ok {
			if g, ok := c.NetConn().(gatherer); ok {
				return g.Gather(func() error { return write(conn, p) })
			}
		}
	}
	return write(conn, p)
}

// write writes p to conn.
func write(conn net.Conn, p []byte) error {
	_, err := conn.Write(p)
	return err
}
