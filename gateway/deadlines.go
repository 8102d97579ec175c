package gateway

import "time"

// Defaults of [Deadlines]. Every wait in this package ends at one of these; there is no wait without a name.
const (
	// DefaultHello is how long a guest may take from connect to a whole ClientHello.
	DefaultHello = 10 * time.Second
	// DefaultForeignHello replaces DefaultHello on a port that no route names, where a client that waits for the server to speak first is better refused soon.
	DefaultForeignHello = 2 * time.Second
	// DefaultHandshake bounds the TLS handshake with the guest, from the end of its hello.
	DefaultHandshake = 10 * time.Second
	// DefaultLookup bounds one name resolution made for a dial.
	DefaultLookup = 10 * time.Second
	// DefaultDial bounds connecting to an upstream, over all its addresses together.
	DefaultDial = 15 * time.Second
	// DefaultAttemptDelay is the head start of one address over the next (RFC 8305 section 5, "Connection Attempt Delay").
	DefaultAttemptDelay = 250 * time.Millisecond
	// DefaultUpstreamHandshake bounds the TLS handshake with an upstream.
	DefaultUpstreamHandshake = 10 * time.Second
	// DefaultUpstreamHeader bounds the wait for a response's head, and for a server to take what was read of a request's body: long enough for a long poll or a slow model, but an end.
	DefaultUpstreamHeader = 15 * time.Minute
	// DefaultUpstreamIdle is how long an unused upstream connection stays in its pool.
	DefaultUpstreamIdle = 90 * time.Second
	// DefaultUpstreamPing is how long a server over HTTP/2 may be silent before it is asked whether it is there.
	DefaultUpstreamPing = 30 * time.Second
	// DefaultUpstreamPingWait is how long it then has to answer.
	DefaultUpstreamPingWait = 15 * time.Second
	// DefaultContinue is the wait for "100 Continue" before a body is sent all the same (RFC 9110 section 10.1.1).
	DefaultContinue = time.Second
	// DefaultRelayIdle ends a relayed connection in which no byte has moved either way (RFC 5382 REQ-5: not less than 2 hours 4 minutes).
	DefaultRelayIdle = 2*time.Hour + 4*time.Minute
	// DefaultHalfCloseIdle replaces DefaultRelayIdle when one side has ended its stream (RFC 5382 REQ-5: transitory state, 4 minutes).
	DefaultHalfCloseIdle = 4 * time.Minute
	// DefaultKeepAlive is the interval of TCP keep-alive probes on both sides, so that a peer that vanished is noticed before DefaultRelayIdle.
	DefaultKeepAlive = 30 * time.Second
	// DefaultSweep is how often relayed connections are looked at for idleness.
	DefaultSweep = 15 * time.Second
	// DefaultAcceptRetry is the pause after accept(2) failed for want of descriptors or memory.
	DefaultAcceptRetry = 50 * time.Millisecond
	// DefaultSelfRefresh is how long the list of this host's own addresses is used before it is read again.
	DefaultSelfRefresh = 5 * time.Second
	// DefaultDrain is how long a removed bottle's flows may take to notice that their connections were closed.
	DefaultDrain = 5 * time.Second
)

// Deadlines holds every wait of the package. A zero or negative field means its default, so that no wait can be turned off.
type Deadlines struct {
	Hello, ForeignHello, Handshake    time.Duration
	Lookup, Dial, AttemptDelay        time.Duration
	UpstreamHandshake, UpstreamHeader time.Duration
	UpstreamIdle, Continue            time.Duration
	UpstreamPing, UpstreamPingWait    time.Duration
	RelayIdle, HalfCloseIdle          time.Duration
	KeepAlive, Sweep                  time.Duration
	AcceptRetry, SelfRefresh, Drain   time.Duration
}

// withDefaults returns d with every unset field at its default.
func (d Deadlines) withDefaults() Deadlines {
	for _, f := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&d.Hello, DefaultHello},
		{&d.ForeignHello, DefaultForeignHello},
		{&d.Handshake, DefaultHandshake},
		{&d.Lookup, DefaultLookup},
		{&d.Dial, DefaultDial},
		{&d.AttemptDelay, DefaultAttemptDelay},
		{&d.UpstreamHandshake, DefaultUpstreamHandshake},
		{&d.UpstreamHeader, DefaultUpstreamHeader},
		{&d.UpstreamIdle, DefaultUpstreamIdle},
		{&d.UpstreamPing, DefaultUpstreamPing},
		{&d.UpstreamPingWait, DefaultUpstreamPingWait},
		{&d.Continue, DefaultContinue},
		{&d.RelayIdle, DefaultRelayIdle},
		{&d.HalfCloseIdle, DefaultHalfCloseIdle},
		{&d.KeepAlive, DefaultKeepAlive},
		{&d.Sweep, DefaultSweep},
		{&d.AcceptRetry, DefaultAcceptRetry},
		{&d.SelfRefresh, DefaultSelfRefresh},
		{&d.Drain, DefaultDrain},
	} {
		if *f.field <= 0 {
			*f.field = f.value
		}
	}
	return d
}
