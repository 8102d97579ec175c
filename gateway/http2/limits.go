package http2

import "time"

// Defaults of [Limits]: what a guest may ask of one connection before it is refused (RFC 9113 section 10.5).
const (
	// DefaultStreams is how many requests a connection may have at once (SETTINGS_MAX_CONCURRENT_STREAMS).
	DefaultStreams = 100
	// DefaultHeadBytes bounds the fields of a head as RFC 9113 section 6.5.2 counts them: 32 bytes for each beside its own.
	DefaultHeadBytes = 64 << 10
	// DefaultFields bounds the number of fields in one head.
	DefaultFields = 200
	// DefaultStreamWindow is how much of one request's body may wait for the handler.
	DefaultStreamWindow = 256 << 10
	// DefaultConnWindow is the same over all streams.
	DefaultConnWindow = 1 << 20
	// DefaultHead is how long a frame, or a head with all its CONTINUATION frames, may take from its first byte to its last.
	DefaultHead = 10 * time.Second
	// DefaultIdle is how long a connection may have no request.
	DefaultIdle = 3 * time.Minute
	// DefaultPing is how long a connection may be silent before the guest is asked whether it is there.
	DefaultPing = 30 * time.Second
	// DefaultPingWait is how long the guest then has to say anything.
	DefaultPingWait = 15 * time.Second
	// DefaultWrite is how long a write of the connection may wait for a guest that does not read, and one of a stream for its window.
	DefaultWrite = 5 * time.Minute
	// DefaultSlow is how much longer a connection may wait for what its guest cannot pay than it goes on without, before it ends.
	DefaultSlow = 10 * time.Second
	// maxCreditBytes is how many bytes of bodies, either way, a connection may have saved up to pay for frames that carry nothing, 256
	// bytes for each.
	maxCreditBytes = 1 << 20
	// DefaultLinger is how long the end of a connection waits for what was written before, and for the guest to close its side, so
	// that a reset does not overtake the last words.
	DefaultLinger = time.Second
)

// Limits bounds what one guest connection may cost. A zero or negative field means its default, so that no bound can be
// turned off. Sizes are in bytes.
type Limits struct {
	Streams, HeadBytes, Fields int
	StreamWindow, ConnWindow   int
	Head, Idle                 time.Duration
	Ping, PingWait             time.Duration
	Write, Slow, Linger        time.Duration
}

// withDefaults returns l with every unset field at its default.
func (l Limits) withDefaults() Limits {
	for _, f := range []struct {
		field *int
		value int
	}{
		{&l.Streams, DefaultStreams},
		{&l.HeadBytes, DefaultHeadBytes},
		{&l.Fields, DefaultFields},
		{&l.StreamWindow, DefaultStreamWindow},
		{&l.ConnWindow, DefaultConnWindow},
	} {
		if *f.field <= 0 {
			*f.field = f.value
		}
	}
	for _, f := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&l.Head, DefaultHead},
		{&l.Idle, DefaultIdle},
		{&l.Ping, DefaultPing},
		{&l.PingWait, DefaultPingWait},
		{&l.Write, DefaultWrite},
		{&l.Slow, DefaultSlow},
		{&l.Linger, DefaultLinger},
	} {
		if *f.field <= 0 {
			*f.field = f.value
		}
	}
	return l
}
