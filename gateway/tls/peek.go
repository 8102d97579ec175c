package tls

import (
	"errors"
	"io"
	"net"
)

// Peek reads from r until the first ClientHello is whole, refused or lost. read holds every byte taken from r, whatever err
// is: a caller that goes on with the connection sends these first, or hands them to Replay; the caller owns the slice.
// Deadlines are the caller's to set on r.
func Peek(r io.Reader) (h Hello, read []byte, err error) {
	return Hello{}, nil, &HelloError{Kind: Malformed, Err: errors.New("not parsed")}
}

// Replay returns c as a connection whose Read first gives the bytes of read and then those of c. It owns read from then on.
// All other methods are those of c; CloseWrite works when c has it.
func Replay(c net.Conn, read []byte) net.Conn { return &replay{Conn: c, read: read} }

type replay struct {
	net.Conn
	read []byte
}
