package pipelock

import (
	"errors"
	"io"

	"gatewayd/gateway/coding"
)

// unfolded is what an encoded body, part or message stands for: reading it scans it.
type unfolded struct {
	growth   *growth
	encoding string
	fodder   *fodder
	decoder  io.ReadCloser
	stream   *Stream // nil where whoever reads scans
	err      error
}

// opener opens the decoder of one encoding. nil is that of encodings that cannot be undone.
type opener func(byteReader) (io.ReadCloser, error)

// contentOpener returns the opener of a content coding.
func contentOpener(name string) opener {
	if !coding.Known(name) {
		return nil
	}
	return func(r byteReader) (io.ReadCloser, error) { return coding.Open(name, r) }
}

// unfold returns a reader of what in stands for. encoding is what an error calls it.
func (g *growth) unfold(in io.Reader, encoding string, open opener, stream *Stream) (*unfolded, error) {
	if open == nil {
		return nil, &EncodingError{Encoding: encoding, Kind: Unknown}
	}
	from, ok := in.(byteReader)
	if !ok {
		from = newLookahead(in)
	}
	f := &fodder{r: from}
	decoder, err := open(f)
	if err != nil {
		return nil, &EncodingError{Encoding: encoding, Kind: Malformed, Err: err}
	}
	return &unfolded{growth: g, encoding: encoding, fodder: f, decoder: decoder, stream: stream}, nil
}

// Read is [io.Reader].Read. It returns io.EOF when all that is encoded was scanned, and nothing is behind it.
func (u *unfolded) Read(p []byte) (int, error) {
	if u.err != nil {
		return 0, u.err
	}
	n, err := u.decoder.Read(p)
	if n > 0 {
		u.fodder.silent = 0
	}
	if leak := u.scan(p[:n]); leak != nil {
		return 0, u.fail(leak)
	}
	switch {
	case u.growth.add(n):
		return 0, u.fail(&EncodingError{Encoding: u.encoding, Kind: Oversized})
	case errors.Is(err, io.EOF):
		return n, u.end()
	case err != nil:
		return n, u.failed(err)
	}
	return n, nil
}

func (u *unfolded) scan(p []byte) error {
	if u.stream == nil {
		return nil
	}
	_, leak := u.stream.Push(p)
	return leak
}

// end makes sure that nothing comes behind the encoded data, where it would reach the server unread.
func (u *unfolded) end() error {
	if _, err := u.fodder.ReadByte(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = errors.New("there are bytes behind its end")
		}
		return u.failed(err)
	}
	if u.stream != nil {
		if _, leak := u.stream.Rest(); leak != nil {
			return u.fail(leak)
		}
	}
	return u.fail(io.EOF)
}

// failed tells a decoder's complaint from an error of the body or a leak that came through the decoder.
func (u *unfolded) failed(err error) error {
	in := u.fodder.err
	switch {
	case errors.Is(in, errSilent) || errors.Is(err, coding.ErrTooLarge):
		err = &EncodingError{Encoding: u.encoding, Kind: Oversized}
	case in != nil && !errors.Is(in, io.EOF):
		err = in
	case in != nil && u.fodder.taken == 0:
		err = io.EOF // there is nothing at all, whatever the coding
	default:
		err = &EncodingError{Encoding: u.encoding, Kind: Malformed, Err: err}
	}
	return u.fail(err)
}

// fail keeps why nothing more is to be read, and frees the decoder.
func (u *unfolded) fail(err error) error {
	u.err = err
	_ = u.decoder.Close() // what it could report was read already
	return err
}

// errSilent stops a decoder that takes in more than maxSilent for nothing.
var errSilent = errors.New("decoder gives out nothing")

// fodder is what one decoder takes in.
type fodder struct {
	r      byteReader
	taken  int64 // bytes in all
	silent int   // bytes since the decoder last gave out anything
	err    error // of r, or errSilent
}

// Read is [io.Reader].Read.
func (f *fodder) Read(p []byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	n, err := f.r.Read(p)
	return n, f.took(n, err)
}

// ReadByte is [io.ByteReader].ReadByte.
func (f *fodder) ReadByte() (byte, error) {
	if f.err != nil {
		return 0, f.err
	}
	c, err := f.r.ReadByte()
	if err != nil {
		return 0, f.took(0, err)
	}
	return c, f.took(1, nil)
}

func (f *fodder) took(n int, err error) error {
	f.taken += int64(n)
	if f.silent += n; err == nil && f.silent > maxSilent {
		err = errSilent
	}
	f.err = err
	return err
}
