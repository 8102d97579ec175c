package http1

import (
	"bytes"
	"io"
	"net"
	"time"
)

// scriptConn is a connection whose guest has said everything beforehand. Reads end with io.EOF.
type scriptConn struct {
	net.Conn
	in     io.Reader
	out    bytes.Buffer
	writes int
}

func (c *scriptConn) Read(p []byte) (int, error)         { return c.in.Read(p) }
func (c *scriptConn) Write(p []byte) (int, error)        { c.writes++; return c.out.Write(p) }
func (c *scriptConn) Close() error                       { return nil }
func (c *scriptConn) RemoteAddr() net.Addr               { return &net.TCPAddr{IP: net.IPv4(198, 18, 0, 2), Port: 1} }
func (c *scriptConn) SetDeadline(time.Time) error        { return nil }
func (c *scriptConn) SetReadDeadline(time.Time) error    { return nil }
func (c *scriptConn) SetWriteDeadline(t time.Time) error { return nil }
