package http1

import "time"

// Defaults of [Limits]: what a guest may ask of one connection before it is refused.
const (
	// DefaultHeadBytes bounds a request's head, from the request line to the empty line.
	DefaultHeadBytes = 64 << 10
	// DefaultFields bounds the number of field lines in one head.
	DefaultFields = 200
	// DefaultChunkLine bounds one chunk-size line with its extensions (RFC 9112 section 7.1.1: "A recipient MUST ... limit the total length of chunk extensions").
	DefaultChunkLine = 256
	// DefaultTrailerBytes bounds the trailer section of a chunked body.
	DefaultTrailerBytes = 16 << 10
	// DefaultTrailerFields bounds the number of its field lines.
	DefaultTrailerFields = 64
	// DefaultHead is how long a head may take from its first byte to its last.
	DefaultHead = 10 * time.Second
	// DefaultIdle is how long a connection may wait for the first byte of its next request.
	DefaultIdle = 3 * time.Minute
	// DefaultBodyIdle is how long one read of a request's body may wait for a byte.
	DefaultBodyIdle = 2 * time.Minute
	// DefaultBodyRate is the least average rate of a request's body in bytes per second, over the time spent waiting for the guest.
	DefaultBodyRate = 64
	// DefaultBodyGrace is how long the gateway waits for a guest's body bytes, in all, before DefaultBodyRate applies.
	DefaultBodyGrace = 2 * time.Minute
	// DefaultWrite is how long one write of at most a TLS record may wait for a guest that does not read.
	DefaultWrite = 5 * time.Minute
	// DefaultDrainBytes is how much of a request's body is read and dropped so that its connection can be used again.
	DefaultDrainBytes = 256 << 10
	// DefaultDrain is how long that may take, and how long a connection lingers after its last response, so that a reset does not overtake the response (RFC 9112 section 9.6).
	DefaultDrain = time.Second
	// DefaultWatch is how long a handler runs before the connection is watched for a guest that leaves.
	DefaultWatch = 100 * time.Millisecond
)

// Limits bounds what one guest connection may cost. A zero or negative field means its default, so that no bound can be
// turned off. Sizes are in bytes.
type Limits struct {
	HeadBytes, Fields           int
	ChunkLine                   int
	TrailerBytes, TrailerFields int
	Head, Idle                  time.Duration
	BodyIdle, BodyGrace         time.Duration
	BodyRate                    int // bytes per second
	Write                       time.Duration
	DrainBytes                  int64
	Drain                       time.Duration
	Watch                       time.Duration
}

// withDefaults returns l with every unset field at its default.
func (l Limits) withDefaults() Limits {
	for _, f := range []struct {
		field *int
		value int
	}{
		{&l.HeadBytes, DefaultHeadBytes},
		{&l.Fields, DefaultFields},
		{&l.ChunkLine, DefaultChunkLine},
		{&l.TrailerBytes, DefaultTrailerBytes},
		{&l.TrailerFields, DefaultTrailerFields},
		{&l.BodyRate, DefaultBodyRate},
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
		{&l.BodyIdle, DefaultBodyIdle},
		{&l.BodyGrace, DefaultBodyGrace},
		{&l.Write, DefaultWrite},
		{&l.Drain, DefaultDrain},
		{&l.Watch, DefaultWatch},
	} {
		if *f.field <= 0 {
			*f.field = f.value
		}
	}
	if l.DrainBytes <= 0 {
		l.DrainBytes = DefaultDrainBytes
	}
	return l
}
