package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// listenerFD is the descriptor of the listening socket that the server inherits.
const listenerFD = 3

// serve answers the clients of this package on the inherited socket until ctx ends.
func serve(ctx context.Context) error {
	f := os.NewFile(listenerFD, "listener")
	l, err := net.FileListener(f)
	f.Close()
	if err != nil {
		return fmt.Errorf("take listener: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	hello := record(recordHandshake, messageSize-recordHeader)
	pour := bulk()
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		go func() {
			defer c.Close()
			if err := answer(c.(*net.TCPConn), hello, pour); err != nil && !errors.Is(err, io.EOF) {
				fmt.Fprintln(os.Stderr, "server:", err)
			}
		}()
	}
}

// answer is one connection's life. A client that closes where it may close is no error.
func answer(c *net.TCPConn, hello, pour []byte) error {
	if err := c.SetDeadline(time.Now().Add(clientPatience)); err != nil {
		return err
	}
	kind, _, err := readRecord(c)
	if err != nil {
		return quiet(err)
	}
	if kind != recordHandshake {
		return fmt.Errorf("first record has type %d, not a hello's", kind)
	}
	if _, err := c.Write(hello); err != nil {
		return quiet(err)
	}
	kind, asked, err := readRecord(c)
	if err != nil {
		return quiet(err) // a client that wanted no more than this
	}
	if kind != recordData || len(asked) < 5 {
		return fmt.Errorf("second record of type %d with %d bytes asks for nothing", kind, len(asked))
	}
	switch asked[0] {
	case askEcho:
		return quiet(pinned(c, lastCPU, clientPatience, echo))
	case askNear:
		return quiet(pinned(c, firstCPU, clientPatience, echo))
	case askWait:
		return quiet(wait(c))
	case askSink:
		return quiet(sink(c))
	case askTaker:
		return quiet(pinned(c, firstCPU, clientPatience, sink))
	case askPour, askPump:
		if err := setCongestion(c, asked[5:]); err != nil {
			return err
		}
		pourAll := func(w io.ReadWriter) error {
			return pourInto(w, pour, time.Duration(binary.BigEndian.Uint32(asked[1:]))*time.Millisecond)
		}
		if asked[0] == askPump {
			return quiet(pinned(c, firstCPU, clientPatience, pourAll))
		}
		return quiet(pourAll(c))
	}
	return fmt.Errorf("asked for %q", asked[0])
}

func echo(s io.ReadWriter) error {
	m := message(askEcho)
	for {
		if _, err := s.Write(m); err != nil {
			return err
		}
		if _, err := io.ReadFull(s, m); err != nil {
			return err
		}
	}
}

// wait answers at once: what the client has sent is acknowledged then, and no gate keeps it for comparison.
func wait(c *net.TCPConn) error {
	if _, err := c.Write(message(askWait)); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, c)
	return err
}

func sink(c io.ReadWriter) error {
	buf := make([]byte, bulkWrite)
	var n uint64
	for {
		got, err := c.Read(buf)
		n += uint64(got)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	_, err := c.Write(message(binary.BigEndian.AppendUint64(nil, n)...))
	return err
}

func pourInto(c io.Writer, pour []byte, d time.Duration) error {
	for end := time.Now().Add(d); time.Now().Before(end); {
		if _, err := c.Write(pour); err != nil {
			return err
		}
	}
	return nil
}

// quiet drops the errors of a connection that the other side ended.
func quiet(err error) error {
	var op *net.OpError
	if errors.Is(err, io.EOF) || errors.As(err, &op) && !op.Timeout() {
		return nil
	}
	return err
}
