package tls

import (
	"crypto/tls"
	"testing"
	"time"
)

// oneSession is a client's session cache that offers the last ticket to everybody.
type oneSession struct{ last *tls.ClientSessionState }

func (o *oneSession) Get(string) (*tls.ClientSessionState, bool)    { return o.last, o.last != nil }
func (o *oneSession) Put(_ string, session *tls.ClientSessionState) { o.last = session }

// TestTicketsAreOfOneName offers a ticket where it is good and where it is not: there the handshake is a whole one.
func TestTicketsAreOfOneName(t *testing.T) {
	const name, other = "a.example.test", "b.example.test"
	now := time.Now()
	clock := func() time.Time { return now }
	authority := func() *CA {
		ca, err := OpenCA(t.TempDir(), "dev", clock)
		if err != nil {
			t.Fatal(err)
		}
		return ca
	}
	ca, another := authority(), authority()
	server := func(ca *CA, name string) *tls.Config {
		cfg, err := ca.ServerConfig(name, nil)
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	careless := server(ca, other).Clone() // what would be resumed without a key for each name
	careless.SetSessionTicketKeys(ca.tickets.of(name, now))
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for what, c := range map[string]struct {
			later time.Duration
			ca    *CA
			name  string
			set   *tls.Config // instead of ca's for name
			want  bool
		}{
			"same name":                         {ca: ca, name: name, want: true},
			"same name, the next period":        {later: ticketAge, ca: ca, name: name, want: true},
			"same name, the period after that":  {later: 2 * ticketAge, ca: ca, name: name},
			"another name":                      {ca: ca, name: other},
			"another authority":                 {ca: another, name: name},
			"another name with this one's keys": {name: other, set: careless, want: true},
		} {
			t.Run(tls.VersionName(version)+"/"+what, func(t *testing.T) {
				began := now
				defer func() { now = began }()
				client := &tls.Config{InsecureSkipVerify: true, MaxVersion: version, ServerName: name, ClientSessionCache: new(oneSession)} //nolint:gosec // only the tickets matter
				ask := func(cfg *tls.Config) bool {
					serverErr, clientErr, state := handshake(t, cfg, client)
					if serverErr != nil || clientErr != nil {
						t.Fatalf("server %v, client %v", serverErr, clientErr)
					}
					return state.DidResume
				}
				if ask(server(ca, name)) {
					t.Fatal("resumed before there was a session")
				}
				now = now.Add(c.later)
				client.ServerName = c.name
				cfg := c.set
				if cfg == nil {
					cfg = server(c.ca, c.name)
				}
				if got := ask(cfg); got != c.want {
					t.Errorf("resumed: %v, want %v", got, c.want)
				}
			})
		}
	}
}
