package gateway

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"gatewayd/gateway/coding"
)

// permessageDeflate is the one WebSocket extension that is carried: its messages can be looked into (RFC 7692).
const permessageDeflate = "permessage-deflate"

// mostOffers is how many offers of an extension are passed on.
const mostOffers = 4

// deflate is an offer of permessage-deflate, or what was agreed on (RFC 7692 section 7.1). nil is none.
type deflate struct {
	text                   string // as it is sent on
	clientAlone            bool   // client_no_context_takeover: no message of the client's refers to those before
	serverAlone            bool   // likewise of the server's
	clientBits, serverBits bool   // a window is named; which one does not matter to a reader with the largest
}

// limitExtensions takes every offer of an extension out of a handshake that is not permessage-deflate in a form that
// RFC 7692 knows, and returns the others.
func limitExtensions(h http.Header) []deflate {
	var kept []deflate
	var texts []string
	for _, field := range h["Sec-Websocket-Extensions"] {
		for offer := range strings.SplitSeq(field, ",") {
			if d, ok := parseDeflate(offer, true); ok && len(kept) < mostOffers {
				kept, texts = append(kept, d), append(texts, d.text)
			}
		}
	}
	h.Del("Sec-Websocket-Extensions")
	if len(kept) > 0 {
		h.Set("Sec-Websocket-Extensions", strings.Join(texts, ", "))
	}
	return kept
}

// agreedDeflate returns what an upstream's answer says of extensions, or why it is no answer to the offers.
func agreedDeflate(h http.Header, offers []deflate) (*deflate, error) {
	fields := h["Sec-Websocket-Extensions"]
	if len(fields) == 0 {
		return nil, nil
	}
	d, ok := parseDeflate(strings.Join(fields, ","), false)
	if !ok {
		return nil, errors.New("it uses an extension that was not offered, or in a way that is not known")
	}
	for _, o := range offers {
		if !d.clientBits || o.clientBits { // section 7.1.2.2
			h.Set("Sec-Websocket-Extensions", d.text)
			return &d, nil
		}
	}
	return nil, errors.New("it uses an extension that was not offered")
}

// parseDeflate reads one offer, or one answer, of permessage-deflate.
func parseDeflate(text string, offer bool) (deflate, bool) {
	name, rest, _ := strings.Cut(text, ";")
	if strings.TrimSpace(name) != permessageDeflate {
		return deflate{}, false
	}
	d := deflate{text: permessageDeflate}
	for rest != "" {
		var parameter string
		parameter, rest, _ = strings.Cut(rest, ";")
		key, value, hasValue := strings.Cut(strings.TrimSpace(parameter), "=")
		key, value = strings.TrimSpace(key), strings.Trim(strings.TrimSpace(value), `"`)
		if !d.set(key, value, hasValue, offer) {
			return deflate{}, false
		}
		d.text += "; " + key
		if hasValue {
			d.text += "=" + value
		}
	}
	return d, true
}

// set takes one parameter, and reports whether it may stand there.
func (d *deflate) set(key, value string, hasValue, offer bool) bool {
	var flag *bool
	switch key {
	case "client_no_context_takeover":
		flag = &d.clientAlone
	case "server_no_context_takeover":
		flag = &d.serverAlone
	case "client_max_window_bits":
		flag = &d.clientBits
	case "server_max_window_bits":
		flag = &d.serverBits
	default:
		return false
	}
	if *flag {
		return false // twice
	}
	*flag = true
	if flag == &d.clientAlone || flag == &d.serverAlone {
		return !hasValue
	}
	if !hasValue {
		return offer && flag == &d.clientBits
	}
	bits, err := strconv.Atoi(value)
	return err == nil && bits >= 8 && bits <= 15 && value == strconv.Itoa(bits)
}

// inflateAndMask returns the filter of an upstream's messages: what was injected is masked in them. Those that are compressed
// go on as they are written, which either side may do with any message (RFC 7692 section 6).
func (x *exchange) inflateAndMask() messageFilter {
	in := coding.NewInflater(x.deflate == nil || !x.deflate.serverAlone)
	return func(r io.Reader, compressed bool) (io.Reader, bool, error) {
		if !compressed {
			return x.masker.Reader(r), true, nil
		}
		if err := in.Begin(bufio.NewReaderSize(r, websocketRead)); err != nil {
			return nil, false, err
		}
		return x.masker.Reader(in), false, nil
	}
}
