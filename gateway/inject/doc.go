// Package inject puts the host's credentials on requests in place of the
// dummies that a guest holds, refuses credentials that are not the plan's, and
// masks what it injected out of the responses.
//
// It knows heads of messages and streams of bytes, and no HTTP server or
// client. A [Secret] never shows itself; a [Source] fetches it from the host;
// an [Injector] checks and rewrites one request; a [Masker] rewrites what
// comes back.
package inject
