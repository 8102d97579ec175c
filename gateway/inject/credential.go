package inject

import (
	"iter"
	"net/http"
	"net/url"
	"strings"
)

// The credential family: header fields and query parameters that servers are
// known to take credentials from. On a request that will carry the plan's
// credential, a guest may put nothing but dummies there, since with somebody
// else's key an allowed API is a way out for data.
//
// Cookies are not in it: sites need them for routing and challenges, and a
// server that takes both goes by the Authorization it is given. Nor is
// anything inside a body.

// credentialHeader tells whether a header field belongs to the family, in any
// case and with "_" for "-", which CGI-like servers cannot tell apart.
func credentialHeader(name string) bool {
	if !mayCarryCredential(name) {
		return false
	}
	name = strings.ToLower(strings.ReplaceAll(name, "_", "-"))
	if strings.Contains(name, "authorization") {
		return true
	}
	for _, end := range []string{
		"api-key", "apikey", "api-token", "access-token", "auth-token", "auth-key", "security-token", "private-token",
		"vault-token", "job-token", "deploy-token", "subscription-key", "application-key", "functions-key", "api-secret",
	} {
		if name == end || strings.HasSuffix(name, "-"+end) {
			return true
		}
	}
	return false
}

// mayCarryCredential tells most names apart from those that credentialHeader has to look at: these end in "key", "token" or
// "secret", or have "authorization" in them, which has a z.
func mayCarryCredential(name string) bool {
	if n := len(name); n >= 2 && name[n-2]|0x20 == 'e' {
		switch name[n-1] | 0x20 {
		case 'y', 'n', 't':
			return true
		}
	}
	return strings.IndexByte(name, 'z') >= 0 || strings.IndexByte(name, 'Z') >= 0
}

// credentialQuery tells whether a query parameter belongs to the family. name
// is decoded.
func credentialQuery(name string) bool {
	switch strings.ToLower(strings.ReplaceAll(name, "_", "-")) {
	case "access-token", // RFC 6750 section 2.3
		"api-key", "apikey", "x-api-key", "private-token", "job-token", "auth-token", "oauth-token", "client-secret",
		"x-amz-credential", "x-amz-security-token", "x-goog-credential", "awsaccesskeyid":
		return true
	}
	return false
}

// family returns the names of the header's fields that belong to the
// credential family or are the injected one, each as it is spelled in the
// block. It appends them to names.
func family(names []string, h Header, injected string) []string {
	own := injected
	injected = strings.ReplaceAll(injected, "_", "-")
	is := func(name string) bool {
		return name == "Authorization" || credentialHeader(name) ||
			len(name) == len(injected) && injected != "" && strings.EqualFold(strings.ReplaceAll(name, "_", "-"), injected)
	}
	switch block := h.(type) {
	case http.Header:
		for name := range block {
			if is(name) {
				names = append(names, name)
			}
		}
	case interface{ Names() []string }:
		for _, name := range block.Names() {
			if is(name) {
				names = append(names, name)
			}
		}
	default:
		for _, name := range []string{
			own, "Authorization", "Proxy-Authorization", "X-Api-Key", "X_api_key", "Api-Key", "Api_key",
			"X-Goog-Api-Key", "X-Auth-Token", "X-Access-Token", "Private-Token", "X-Amz-Security-Token",
		} {
			if name != "" && len(h.Values(name)) > 0 {
				names = append(names, name)
			}
		}
	}
	return names
}

// values returns a field's values, also when its name is not canonical.
func values(h Header, name string) []string {
	if block, ok := h.(http.Header); ok {
		return block[name]
	}
	return h.Values(name)
}

// set sets a field that is not there to values, which are not the header's to change.
func set(h Header, name string, values []string) {
	if block, ok := h.(http.Header); ok {
		block[name] = values
		return
	}
	h.Set(name, values[0])
}

func remove(h Header, name string) {
	if block, ok := h.(http.Header); ok {
		delete(block, name)
		return
	}
	h.Del(name)
}

// subprotocolCredential returns the credential that an offered WebSocket
// subprotocol carries, as browsers' clients do for want of headers, or "".
func subprotocolCredential(offer string) string {
	low := strings.ToLower(offer)
	for _, mark := range []string{"bearer.", "authorization.", "api-key.", "apikey.", "access-token.", "auth-token."} {
		if i := strings.LastIndex(low, mark); i >= 0 {
			return offer[i+len(mark):]
		}
	}
	return ""
}

// param is one piece of a query between separators.
type param struct {
	raw         string
	name, value string // decoded as far as they can be
}

// params yields the pieces of a query, cut at "&" and at ";", which some servers
// still take for a separator (HTML 4.01 appendix B.2.2). Nothing but separators
// is dropped.
func params(raw string) iter.Seq[param] {
	return func(yield func(param) bool) {
		for raw != "" {
			piece, rest := raw, ""
			if i := strings.IndexAny(raw, "&;"); i >= 0 {
				piece, rest = raw[:i], raw[i+1:]
			}
			raw = rest
			if piece == "" {
				continue
			}
			name, value, _ := strings.Cut(piece, "=")
			if !yield(param{piece, decodeQuery(name), decodeQuery(value)}) {
				return
			}
		}
	}
}

func decodeQuery(s string) string {
	if d, err := url.QueryUnescape(s); err == nil {
		return d
	}
	return s
}

// isParam tells whether a decoded parameter name is the given one to some
// server: in any case, and with a subscript (name[], name[0]).
func isParam(name, want string) bool {
	base, _, _ := strings.Cut(name, "[")
	return want != "" && strings.EqualFold(strings.TrimSpace(base), want)
}
