package plan

import (
	"errors"
	"fmt"
	"net/netip"
	"net/textproto"
	"regexp"
	"slices"
	"strings"

	"gatewayd/gateway/routes"
)

var (
	// methodToken is an upper-case token of RFC 9110 §5.6.2: methods are
	// case-sensitive (§9.1), and no registered one has lower case.
	methodToken = regexp.MustCompile("^[A-Z0-9!#$%&'*+.^_`|~-]{1,32}$")
	headerToken = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$")
	envName     = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)
	queryName   = regexp.MustCompile(`^[A-Za-z0-9_.~-]{1,128}$`)
	// dummyWord needs no quoting in a shell, a URL's query or an environment file.
	dummyWord = regexp.MustCompile(`^[A-Za-z0-9._~@:+/=-]+$`)
	badEscape = regexp.MustCompile(`~([^01]|$)`)
)

// notInjectable are headers that a message's framing or routing depends on.
var notInjectable = []string{
	"Connection", "Content-Encoding", "Content-Length", "Content-Type", "Expect", "Host", "Keep-Alive",
	"Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// minDummy and maxDummy bound a dummy in bytes: short strings turn up by
// accident, and a dummy on its way elsewhere is taken for a leak.
const minDummy, maxDummy = 16, 512

func (d *decoder) validateRoute(at string, r *RouteManifest) {
	d.validateHost(at, r)
	d.validatePort(at, r)
	d.validateMethods(at, r)
	for i, p := range r.Paths {
		if err := routes.ValidatePathPattern(p); err != nil {
			d.refuse(fmt.Sprintf("%s.paths[%d]", at, i), quote(p)+" is no path pattern ("+reasonOf(err)+")", "write a path that begins with /; * stands for a part of one segment, ** for any depth: /repos/**")
		}
	}
	d.validateBlind(at, r)
	if r.Auth != nil {
		d.validateAuth(at+".auth", r)
	}
}

func (d *decoder) validateHost(at string, r *RouteManifest) {
	field := at + ".host"
	if !d.has(field) {
		d.refuse(field, "is missing", "write the host's name: host: api.example.org")
		return
	}
	if problem, remedy := hostProblem(r.Host); problem != "" {
		d.refuse(field, problem, remedy)
		return
	}
	name, err := routes.CanonicalPattern(r.Host)
	if err != nil {
		d.refuse(field, quote(r.Host)+" is no host name ("+reasonOf(err)+")", "write letters, digits, hyphens and dots, as the certificate names the host: api.example.org")
		return
	}
	r.Host = name
}

// hostProblem recognises what is often written in place of a host name.
func hostProblem(s string) (problem, remedy string) {
	bare := strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")
	if p, err := netip.ParsePrefix(bare); err == nil {
		bare = p.Addr().String()
	}
	switch _, err := netip.ParseAddr(bare); {
	case strings.TrimSpace(s) == "":
		return "is empty", "write the host's name: host: api.example.org"
	case err == nil:
		return quote(s) + " is an IP address", "write the host's name: only names are pinned and verified"
	case strings.Contains(s, "://"):
		return quote(s) + " is a URL", "write the host alone, and paths below paths:"
	case s == "*" || s == "**" || s == "*.":
		return quote(s) + " allows every host", "name the hosts, or *.suffix"
	case strings.Contains(s, "*") && (strings.Count(s, "*") > 1 || !strings.HasPrefix(s, "*.")):
		return quote(s) + " has a wildcard that is not the whole first label", "write *.suffix, such as *.example.org, or name each host"
	case strings.Contains(s, "/"):
		return quote(s) + " holds a path", "write the host alone, and paths below paths:"
	case strings.Contains(s, ":"):
		return quote(s) + " holds a port", "write the host alone, and port: NUMBER beside it"
	case strings.HasSuffix(s, "."):
		return quote(s) + " ends in a dot", "leave the dot out"
	}
	return "", ""
}

func (d *decoder) validatePort(at string, r *RouteManifest) {
	switch routes.Protocol(r.Protocol) {
	case "":
		r.Protocol = string(routes.HTTPS)
	case routes.HTTPS, routes.HTTP, routes.TCP:
	default:
		d.refuse(at+".protocol", quote(r.Protocol)+" is no protocol", "write https (the default), http or tcp")
		return
	}
	switch {
	case d.has(at + ".port"):
		if r.Port < 1 || r.Port > 65535 {
			d.refuse(at+".port", fmt.Sprintf("%d is out of range", r.Port), "write 1 to 65535")
		}
	case r.Protocol == string(routes.HTTPS):
		r.Port = 443
	case r.Protocol == string(routes.HTTP):
		r.Port = 80
	default:
		d.refuse(at+".port", "is missing", "protocol tcp has no default port: write port: NUMBER")
	}
}

func (d *decoder) validateMethods(at string, r *RouteManifest) {
	for i, m := range r.Methods {
		field := fmt.Sprintf("%s.methods[%d]", at, i)
		switch {
		case m != strings.ToUpper(m) && methodToken.MatchString(strings.ToUpper(m)):
			d.refuse(field, quote(m)+" is not upper case", "write "+strings.ToUpper(m))
		case !methodToken.MatchString(m):
			d.refuse(field, quote(m)+" is no HTTP method", "write a method such as GET")
		case m == "CONNECT" || m == "TRACE":
			d.refuse(field, m+" is never forwarded", "remove it")
		case slices.Contains(r.Methods[:i], m):
			d.refuse(field, m+" is there twice", "remove one of the two")
		}
	}
}

// validateBlind refuses restrictions that nobody could enforce, because the
// gateway does not see the requests.
func (d *decoder) validateBlind(at string, r *RouteManifest) {
	if r.Pipelock != nil {
		d.validatePipelock(at+".pipelock", r)
	}
	through := r.Pipelock != nil && r.Pipelock.TLSPassthrough
	tcp := r.Protocol == string(routes.TCP)
	for _, key := range []string{"methods", "paths"} {
		switch {
		case !d.has(at + "." + key):
		case tcp:
			d.refuse(at+"."+key, "a route with protocol tcp has no "+key, "remove "+key+", or write protocol: https")
		case through && r.Auth == nil:
			d.refuse(at+"."+key, "a passed-through route is never decrypted, so nobody could enforce "+key, "remove "+key+", or remove pipelock.tls_passthrough")
		}
	}
	if through && r.Protocol != string(routes.HTTPS) {
		d.refuse(at+".pipelock.tls_passthrough", "protocol "+r.Protocol+" has no TLS to pass through", "remove pipelock, or write protocol: https")
	}
}

// validatePipelock checks what is said of scanning.
func (d *decoder) validatePipelock(at string, r *RouteManifest) {
	p := r.Pipelock
	rules := false
	for _, key := range []string{"action", "disable"} {
		if !d.has(at + "." + key) {
			continue
		}
		rules = true
		switch {
		case key == "disable" && strings.HasPrefix(r.Host, "*."): // names under it are scanned in any case
		case r.Protocol == string(routes.TCP):
			d.refuse(at+"."+key, "a route with protocol tcp is not scanned", "remove "+key+", or write protocol: https")
		case p.TLSPassthrough:
			d.refuse(at+"."+key, "a route with tls_passthrough is not scanned", "remove "+key+", or tls_passthrough")
		}
	}
	if !rules && !d.has(at+".tls_passthrough") {
		d.refuse(at, "says nothing", "write pipelock: {tls_passthrough: true}, or remove it")
	}
	if d.has(at+".action") && p.Action != "block" && p.Action != routes.WarnAction {
		d.refuse(at+".action", quote(p.Action)+" is no action", "write block or warn")
	}
	for i, id := range p.Disable {
		if id == "" || slices.Contains(p.Disable[:i], id) {
			d.refuse(fmt.Sprintf("%s.disable[%d]", at, i), quote(id)+" is empty or there twice", "remove it")
		}
	}
	if d.has(at+".disable") && len(p.Disable) == 0 {
		d.refuse(at+".disable", "is empty", "name the rules, or remove it")
	}
}

func (d *decoder) validateAuth(at string, r *RouteManifest) {
	a := r.Auth
	switch {
	case r.Protocol == string(routes.TCP):
		d.refuse(at, "a route with protocol tcp has no requests to put a credential into", "remove auth, or write protocol: https")
	case strings.HasPrefix(r.Host, "*."):
		d.refuse(at, "a credential goes to exactly one host, not to "+r.Host, "write one route with auth for each host that needs it")
	}
	switch routes.Scheme(a.Scheme) {
	case routes.Bearer, routes.Basic:
	case routes.HeaderScheme:
		d.validateAuthHeader(at, a)
	case routes.QueryScheme:
		if !queryName.MatchString(a.Query) {
			d.refuse(at+".query", "scheme query needs a parameter's name", "write query: NAME, of letters, digits, _ . ~ -")
		}
	case "":
		d.refuse(at+".scheme", "is missing", "write bearer, basic, header or query")
	default:
		d.refuse(at+".scheme", quote(a.Scheme)+" is no scheme", "write bearer, basic, header or query")
	}
	d.validateAuthExtras(at, a)
	d.validateSecret(at+".secret", &a.Secret)
}

func (d *decoder) validateAuthHeader(at string, a *AuthManifest) {
	name := textproto.CanonicalMIMEHeaderKey(a.Header)
	switch {
	case !headerToken.MatchString(a.Header):
		d.refuse(at+".header", "scheme header needs a header's name", "write header: X-Api-Key, say")
	case slices.Contains(notInjectable, name) || strings.HasPrefix(name, "Sec-"):
		d.refuse(at+".header", "header "+name+" belongs to the connection", "name the header in which the host expects its credential")
	default:
		a.Header = name
	}
}

// validateAuthExtras checks the fields beside scheme and secret.
func (d *decoder) validateAuthExtras(at string, a *AuthManifest) {
	d.validateBelongs(at, "header", a, routes.HeaderScheme)
	d.validateBelongs(at, "query", a, routes.QueryScheme)
	d.validateBelongs(at, "user", a, routes.Basic)
	if routes.Scheme(a.Scheme) == routes.Basic && (a.User == "" || strings.Contains(a.User, ":")) {
		d.refuse(at+".user", "scheme basic needs a user name without a colon", "write user: NAME (many hosts take any name beside a token)")
	}
	if d.has(at+".dummy") && (len(a.Dummy) < minDummy || len(a.Dummy) > maxDummy || !dummyWord.MatchString(a.Dummy)) {
		d.refuse(at+".dummy", "is no dummy", fmt.Sprintf("write %d to %d letters, digits and . _ ~ @ : + / = - that occur nowhere else, or leave it out", minDummy, maxDummy))
	}
	if d.has(at+".env") && !envName.MatchString(a.Env) {
		d.refuse(at+".env", quote(a.Env)+" is no variable name", "write letters, digits and _, not beginning with a digit")
	}
	if d.has(at+".role") && a.Role != roleProvider {
		d.refuse(at+".role", quote(a.Role)+" is no role", "write provider, or remove the key")
	}
}

// validateBelongs refuses a field of auth that its scheme would not use.
func (d *decoder) validateBelongs(at, key string, a *AuthManifest, scheme routes.Scheme) {
	if d.has(at+"."+key) && routes.Scheme(a.Scheme) != scheme {
		d.refuse(at+"."+key, "goes with scheme "+string(scheme)+", not "+orWord(a.Scheme, "none"), "remove "+key+", or write scheme: "+string(scheme))
	}
}

// roleProvider is auth.role of a manifest route that carries the agent
// provider's credential.
const roleProvider = "provider"

// validateSecret repeats no value in its messages: people write secrets where
// references belong.
func (d *decoder) validateSecret(at string, s *SecretManifest) {
	if !d.has(at) {
		d.refuse(at, "is missing", "write secret: {env: NAME}, {file: PATH}, {json: {path: PATH, pointer: /a/b}} or {command: [/path, argument]}")
		return
	}
	var set []string
	for _, key := range []string{"env", "file", "json", "command"} {
		if d.has(at + "." + key) {
			set = append(set, key)
		}
	}
	if len(set) != 1 {
		d.refuse(at, fmt.Sprintf("names %d sources, not one", len(set)), "keep exactly one of env, file, json and command")
		return
	}
	switch set[0] {
	case "env":
		if !envName.MatchString(s.Env) {
			d.refuse(at+".env", "is no variable name", "write the name of a variable, not its value: GITHUB_TOKEN")
		}
	case "file":
		if !hostPath(s.File) {
			d.refuse(at+".file", "is no absolute path", "write a path that begins with / or ~/")
		}
	case "json":
		d.validateJSON(at+".json", s.JSON)
	case "command":
		if len(s.Command) > 0 && !absolute(s.Command[0]) {
			d.refuse(at+".command[0]", "is no absolute path", "write the program's whole path: /usr/bin/pass")
		}
	}
}

func (d *decoder) validateJSON(at string, j *JSONManifest) {
	if j == nil {
		return
	}
	if !hostPath(j.Path) {
		d.refuse(at+".path", "is no absolute path", "write a path that begins with / or ~/")
	}
	// RFC 6901 §3: "~" is followed by 0 or 1.
	if !strings.HasPrefix(j.Pointer, "/") || badEscape.MatchString(j.Pointer) {
		d.refuse(at+".pointer", "is no JSON pointer", "begin with /, write ~0 for ~ and ~1 for / inside a name: /tokens/access_token")
	}
}

// validateDuplicates refuses two routes for one host and port, and one
// variable for two dummies.
func (d *decoder) validateDuplicates(list []RouteManifest) {
	type key struct {
		host string
		port int
	}
	first := map[key]int{}
	for i, r := range list {
		at := fmt.Sprintf("egress.routes[%d].host", i)
		k := key{r.Host, r.Port}
		if j, dup := first[k]; dup && r.Host != "" {
			line := d.line(fmt.Sprintf("egress.routes[%d].host", j))
			d.refuse(at, fmt.Sprintf("%s port %d is there twice, first in line %d", clip(r.Host), r.Port, line), "merge the two routes into one")
			continue
		}
		first[k] = i
	}
}

// reasonOf returns why routes refused a name or a pattern, without repeating it.
func reasonOf(err error) string {
	var name *routes.NameError
	if errors.As(err, &name) {
		return name.Reason
	}
	var path *routes.PathError
	if errors.As(err, &path) {
		return path.Reason
	}
	return clip(err.Error())
}
