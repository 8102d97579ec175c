package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// What follows the ClientHello is framed as TLS records (RFC 8446 section 5.1), without TLS's cryptography: a gate that
// looks at the stream sees what it would see of TLS, and no cipher's cost hides the cost of the way.
const (
	recordHeader    = 5
	recordHandshake = 22
	recordData      = 23
	messageSize     = 128       // bytes of a request and of a response, record header included
	bulkRecord      = 16 << 10  // payload of a bulk record
	bulkWrite       = 256 << 10 // bytes handed to one write, about
	mostHello       = 16 << 10
)

// What a client asks for in the first payload byte of its first data record.
const (
	askEcho  = 'e' // answer every request until the client closes, on a CPU of the answering end's own
	askNear  = 'n' // likewise, on the CPU that the asking end has
	askWait  = 'w' // answer once and wait for the client to close
	askTaker = 'S' // as askSink, on the CPU that the asking end has
	askPump  = 'P' // as askPour, likewise
	askSink  = 's' // count what comes until the client closes its side, then send one message
	askPour  = 'p' // send for as many milliseconds as the next four bytes say, by the algorithm that is named behind them, then close
)

var errHelloTaken = errors.New("hello taken")

// helloTaker is the connection of a TLS client that gets no further than its first flight.
type helloTaker struct {
	net.Conn // nil: a handshake's first flight only writes
	bytes.Buffer
}

func (h *helloTaker) Read([]byte) (int, error)    { return 0, errHelloTaken }
func (h *helloTaker) Write(p []byte) (int, error) { return h.Buffer.Write(p) }
func (h *helloTaker) Close() error                { return nil }

// clientHello returns the record with which Go's TLS client begins a connection to name.
func clientHello(ctx context.Context, name string) ([]byte, error) {
	var h helloTaker
	c := tls.Client(&h, &tls.Config{ServerName: name, MinVersion: tls.VersionTLS13})
	if err := c.HandshakeContext(ctx); !errors.Is(err, errHelloTaken) {
		return nil, fmt.Errorf("make hello for %s: %w", name, err)
	}
	return h.Bytes(), nil
}

// message is a data record of messageSize bytes whose payload begins with first.
func message(first ...byte) []byte {
	m := record(recordData, messageSize-recordHeader)
	copy(m[recordHeader:], first)
	return m
}

// record is a record of zeros.
func record(kind byte, payload int) []byte {
	r := make([]byte, recordHeader+payload)
	r[0], r[1], r[2] = kind, 3, 3
	binary.BigEndian.PutUint16(r[3:], uint16(payload))
	return r
}

// bulk is what is written over and over: whole data records.
func bulk() []byte {
	return bytes.Repeat(record(recordData, bulkRecord), bulkWrite/bulkRecord)
}

// readRecord reads one record and returns its type and payload.
func readRecord(r io.Reader) (kind byte, payload []byte, err error) {
	var head [recordHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint16(head[3:])
	if n > mostHello {
		return 0, nil, fmt.Errorf("read record: %d bytes, more than %d", n, mostHello)
	}
	payload = make([]byte, n)
	if _, err := io.ReadFull(r, payload); err != nil {
		return 0, nil, err
	}
	return head[0], payload, nil
}
