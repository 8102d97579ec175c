package gateway

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"gatewayd/gateway/coding"
	"gatewayd/gateway/inject"
)

// headDelay is how long a response's head may wait for the first bytes of its body, so that both leave together.
const headDelay = 5 * time.Millisecond

// deliver sends the upstream's response on. It reports false if that broke off.
func (x *exchange) deliver(resp *http.Response) (whole bool) {
	defer resp.Body.Close()
	if d := x.cutOff(); d != nil { // the upstream may answer a request that was cut off before its sender hears of that
		return x.fail(d)
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return x.fail(&denial{status: http.StatusBadGateway, reason: ReasonUpstreamExchange, detail: fmt.Sprintf("%s changed the protocol without being asked.", x.host)})
	}
	if x.stream != nil && resp.StatusCode/100 == 2 { // the guest would take its body for frames (RFC 8441 section 5)
		return x.fail(&denial{status: http.StatusBadGateway, reason: ReasonUpstreamExchange, detail: fmt.Sprintf("%s did not open a WebSocket.", x.host)})
	}
	measured := resp.ContentLength >= 0 && len(resp.Header["Content-Length"]) == 1 // then it says the same
	strip := func(key string, values []string) (drop bool) {
		if hidden(key) && !(measured && key == "Content-Length") {
			return true
		}
		x.masker.Field(resp.Header, key, values)
		return false
	}
	if err := inject.StripHopByHop(resp.Header, strip); err != nil {
		return x.fail(&denial{status: http.StatusBadGateway, reason: ReasonUpstreamExchange, err: err, detail: fmt.Sprintf("The response of %s has a Connection field that cannot be followed.", x.host)})
	}
	body := responseBody{src: resp.Body}
	if x.masker != nil {
		decoded, d := x.mask(resp)
		if d != nil {
			return x.fail(d)
		}
		body = responseBody{src: decoded, masker: x.masker, masks: &x.s.engine.masks}
		defer body.end()
	}
	x.w.adopt(resp.Header)
	h := x.w.Header()
	for key := range resp.Trailer {
		h.Add("Trailer", key)
	}
	x.w.WriteHeader(resp.StatusCode)
	err := x.copyBody(resp, &body)
	if err == nil && x.cutOff() != nil {
		// An upstream whose request was cut off may end its response properly before its connection is closed.
		err = errors.New("the request was cut off")
	}
	if err != nil {
		return x.broke(err)
	}
	x.copyTrailer(resp)
	x.alone = x.isAlone(resp)
	return true
}

// isAlone tells whether nobody else holds any memory of the exchange, whose response was delivered. A request's body has its own
// goroutines. The guest's side has the header: over HTTP/1.1 no longer than until it is written, if that says how long the body is;
// over HTTP/2 the head leaves with the first bytes of the body, and what had its trailers is given up then.
func (x *exchange) isAlone(resp *http.Response) bool {
	if x.out.Body != nil || x.r.Body != http.NoBody || resp.ContentLength < 0 || len(resp.Trailer) > 0 || x.delivery.late {
		return false
	}
	return !x.s.h2 || x.w.written > 0 && x.w.disown()
}

// broke records that a response broke off after it had begun.
func (x *exchange) broke(err error) bool {
	if d := x.cutOff(); d != nil {
		x.note(d)
		return false
	}
	x.rec.Error = err.Error()
	if x.r.Context().Err() != nil {
		x.rec.Reason = ReasonGuestLeft
	}
	return false
}

// hidden tells whether a guest may not see a field of an upstream's header. Alt-Svc would send the guest to another host, port or
// protocol, where the plan does not let it go (RFC 7838). The rest frames the message between the gateway and its peer.
func hidden(key string) bool {
	switch key {
	case "Alt-Svc", "Content-Length", "Transfer-Encoding", "Trailer", "Connection", "Keep-Alive":
		return true
	}
	return false
}

// copyResponseHeader adds what a guest may see of an upstream's header to the response's.
func copyResponseHeader(dst, src http.Header) {
	for key, values := range src {
		if !hidden(key) {
			dst[key] = slices.Clone(values)
		}
	}
}

// mask returns a response's body in a form in which the injected credential can be hidden: one that is encoded is decoded, since
// it cannot be seen in it otherwise; one that cannot be is not delivered.
func (x *exchange) mask(resp *http.Response) (io.Reader, *denial) {
	encoding := strings.ToLower(strings.TrimSpace(strings.Join(resp.Header["Content-Encoding"], ",")))
	bodiless := x.r.Method == http.MethodHead || resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotModified
	var body io.Reader = resp.Body
	switch {
	case resp.StatusCode == http.StatusPartialContent && !bodiless:
		return nil, x.unmaskable("sent a part of a body, which it was not asked for")
	case encoding == "" || encoding == "identity":
		return body, nil
	case !bodiless:
		decoded, err := coding.OpenLenient(encoding, resp.Body)
		if err != nil {
			return nil, x.unmaskable(err.Error())
		}
		body = decoded
	case !coding.Known(encoding):
		return nil, x.unmaskable("names the content coding " + strconv.Quote(encoding))
	}
	for _, key := range []string{"Content-Encoding", "Content-Length", "Content-Digest", "Digest", "Content-Md5"} {
		resp.Header.Del(key) // they are of the encoded form
	}
	resp.ContentLength = -1
	weaken(resp.Header)
	return body, nil
}

// unmaskable is the denial of a response in which the credential could hide.
func (x *exchange) unmaskable(why string) *denial {
	return &denial{
		status: http.StatusBadGateway, reason: ReasonUnmaskable, err: errors.New(why),
		detail: fmt.Sprintf("The response of %s cannot be checked for the credential that was injected: it %s.", x.host, why),
	}
}

// weaken marks a validator as one of equivalent content, which the decoded form is (RFC 9110 section 8.8.1).
func weaken(h http.Header) {
	if tag := h.Get("Etag"); tag != "" && !strings.HasPrefix(tag, "W/") {
		h.Set("Etag", "W/"+tag)
	}
}

// streams reports whether the head of a response must not wait for its body, nor its pieces for one another.
func streams(h http.Header) bool {
	t := h.Get("Content-Type")
	return strings.HasPrefix(t, "text/event-stream") || strings.HasPrefix(t, "application/grpc")
}

// copyBody sends the body on, piece by piece as it comes. Every piece is flushed, but for the last, which leaves with the
// end of the response.
func (x *exchange) copyBody(resp *http.Response, body *responseBody) error {
	if x.r.Method == http.MethodHead || resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotModified {
		return nil
	}
	if resp.ContentLength == 0 {
		return nil // nothing to flush: over HTTP/2 the head must end the stream, or gRPC takes it for an answer without trailers
	}
	d := &x.delivery
	d.w = x.w
	defer d.end()
	switch {
	case streams(resp.Header) && buffered(resp) == 0:
		d.flushHead()
	case !wholeBuffered(resp) && !(body.src == io.Reader(resp.Body) && ready(resp)):
		d.flushLater()
	}
	pool := x.s.engine.pieces // a guest that takes nothing of many answers has no more than that of each here
	if come(resp) > pool.size {
		pool = x.s.engine.bodies // but what has come is here already
	}
	buf := pool.get()
	defer func() { pool.put(buf) }()
	left := resp.ContentLength
	for {
		p, err := body.next(*buf)
		last := err != nil || left >= 0 && left == int64(len(p))
		if len(p) > 0 {
			if werr := d.write(p, !last); werr != nil {
				return fmt.Errorf("write to guest: %w", werr)
			}
		} else if err == nil {
			d.flushLater() // all that came is held back
		}
		if bodies := x.s.engine.bodies; pool != bodies && len(p) > len(*buf)/2 {
			pool.put(buf)
			pool, buf = bodies, bodies.get()
		}
		if left >= 0 {
			left -= int64(len(p))
		}
		switch {
		case errors.Is(err, io.EOF) && left <= 0:
			return nil
		case errors.Is(err, io.EOF):
			return fmt.Errorf("read from upstream: %w", io.ErrUnexpectedEOF)
		case err != nil:
			return fmt.Errorf("read from upstream: %w", err)
		}
	}
}

// responseBody is a response's body on its way to the guest.
type responseBody struct {
	src    io.Reader
	masker *inject.Masker // nil if nothing has to be hidden
	masks  *maskPool
	mask   *inject.Stream // of masks, from the first piece on that is not all and clean
}

// next reads once into buf and returns what can be sent of the body, which is valid until the next call and may be nothing.
func (b *responseBody) next(buf []byte) ([]byte, error) {
	n, err := b.src.Read(buf)
	if b.masker == nil {
		return buf[:n], err
	}
	last := errors.Is(err, io.EOF)
	if b.mask == nil {
		if last && b.masker.Clean(buf[:n]) {
			return buf[:n], err
		}
		b.mask = b.masks.get(b.masker)
	}
	if last {
		return b.mask.End(buf[:n]), err
	}
	return b.mask.Push(buf[:n]), err
}

// end gives back what next took. What next returned is not valid any more.
func (b *responseBody) end() {
	if b.mask != nil {
		b.masks.put(b.mask)
	}
}

// wholeBuffered reports whether all of a response's body has come with its head, so that reading it does not block.
func wholeBuffered(resp *http.Response) bool {
	return resp.ContentLength > 0 && int64(buffered(resp)) >= resp.ContentLength
}

// buffered returns how much has come of a response's body, and of its framing, as far as that can be told.
func buffered(resp *http.Response) int {
	if b, ok := resp.Body.(interface{ Buffered() int }); ok {
		return b.Buffered()
	}
	return 0
}

// ready reports whether something has come of a response's body, so that reading it once does not block.
func ready(resp *http.Response) bool {
	b, ok := resp.Body.(interface{ Ready() bool })
	return ok && b.Ready()
}

// come returns about how much has come of a response's body that is held beneath it, as far as that can be told.
func come(resp *http.Response) int {
	if b, ok := resp.Body.(interface{ Come() int }); ok {
		return b.Come()
	}
	return 0
}

// delivery orders the writes of a body with the flush of a head that waited long enough.
type delivery struct {
	mu    sync.Mutex
	w     *tally
	begun bool // the head has left, or must be left alone
	late  bool // a flush of the head has begun, and may not be over
	timer *time.Timer
}

// flushLater has the head sent in a moment, if nothing has been sent by then. A timer wakes a thread, which costs more than what
// it waits for when that is there.
func (d *delivery) flushLater() {
	if d.timer == nil && !d.begun {
		d.timer = time.AfterFunc(headDelay, d.flushHead)
	}
}

// flushHead sends the head if nothing has been sent yet.
func (d *delivery) flushHead() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.begun {
		d.begun = true
		_ = d.w.FlushError() // the next write fails too
	}
}

// write sends p, and flushes it if more may be long in coming.
func (d *delivery) write(p []byte, flush bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.begun = true
	if _, err := d.w.Write(p); err != nil {
		return err
	}
	if flush {
		return d.w.FlushError()
	}
	return nil
}

// end makes a late flushHead do nothing.
func (d *delivery) end() {
	if d.timer == nil {
		return
	}
	d.mu.Lock()
	d.begun = true
	d.mu.Unlock()
	d.late = !d.timer.Stop()
}

// copyTrailer sends the trailers on, announced or not (RFC 9110 section 6.5).
func (x *exchange) copyTrailer(resp *http.Response) {
	if len(resp.Trailer) == 0 {
		return
	}
	if x.masker != nil {
		x.masker.Header(resp.Trailer)
	}
	h := x.w.Header()
	announced := h["Trailer"]
	for key, values := range resp.Trailer {
		if !slices.Contains(announced, key) {
			key = http.TrailerPrefix + key
		}
		h[key] = slices.Clone(values)
	}
}
