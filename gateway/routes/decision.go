package routes

// Decision is what policy says of a flow or of one request. The zero value
// is Deny, so that a forgotten assignment cannot let anything through.
type Decision uint8

// The decisions, in the order of how much the guest gets to see of the
// destination.
const (
	// Deny: nothing of the flow or request reaches the destination.
	Deny Decision = iota
	// Passthrough: bytes are carried unread, by the kernel or by a splice.
	Passthrough
	// Intercept: TLS is terminated (or plain HTTP parsed) and every request
	// is decided on its own.
	Intercept
)

// String returns the decision's name as records carry it: "deny",
// "passthrough" or "intercept". A value out of range reads as "deny".
func (d Decision) String() string {
	switch d {
	case Passthrough:
		return "passthrough"
	case Intercept:
		return "intercept"
	default:
		return "deny"
	}
}

// MarshalText implements encoding.TextMarshaler with the names of String. It
// never fails.
func (d Decision) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// Protocol is how the bytes of a flow are to be read.
type Protocol string

// The protocols that a route may name.
const (
	// HTTPS is HTTP over TLS on port 443 unless the route says otherwise. It
	// is what an empty protocol means.
	HTTPS Protocol = "https"
	// HTTP is HTTP in clear text, on port 80 unless the route says otherwise.
	HTTP Protocol = "http"
	// TCP is any protocol, carried unread to a pinned address. A route with
	// it must name its port.
	TCP Protocol = "tcp"
)

// DefaultPort returns the port that a route with this protocol has when it
// names none: 443 for HTTPS and for the empty protocol, 80 for HTTP, and 0
// (there is none) for every other.
func (p Protocol) DefaultPort() uint16 {
	switch p {
	case HTTPS, "":
		return 443
	case HTTP:
		return 80
	default:
		return 0
	}
}

// Scheme is where and in which form a credential is put on a request.
type Scheme string

// The schemes that an Auth may name.
const (
	// Bearer sends "Authorization: Bearer SECRET" (RFC 6750 section 2.1).
	Bearer Scheme = "bearer"
	// Basic sends "Authorization: Basic base64(User:SECRET)" (RFC 7617).
	Basic Scheme = "basic"
	// HeaderScheme sends the secret as the whole value of the header Header.
	HeaderScheme Scheme = "header"
	// QueryScheme sends the secret as the query parameter Query.
	QueryScheme Scheme = "query"
)

// Reason says why a verdict is what it is. The texts are stable: they are
// written to records and used as metric labels, so there are few of them.
type Reason string

// The reasons that verdicts of this package carry.
const (
	// RouteMatched: a route of the plan allows it.
	RouteMatched Reason = "route"
	// NoRoute: no route names the host.
	NoRoute Reason = "no_route"
	// PortDenied: routes name the host, but none of them on this port.
	PortDenied Reason = "port"
	// ProtocolDenied: the route for this host and port has another protocol.
	ProtocolDenied Reason = "protocol"
	// MethodDenied: the route does not list the method, or the method is one
	// that is never forwarded (CONNECT, TRACE, anything that is no token).
	MethodDenied Reason = "method"
	// PathDenied: no path pattern of the route matches.
	PathDenied Reason = "path"
	// PathNotCanonical: the path could be read in more than one way, so that
	// matching it would prove nothing about what the server sees.
	PathNotCanonical Reason = "path_not_canonical"
	// BadName: the host is not a canonical DNS name.
	BadName Reason = "bad_name"
)
