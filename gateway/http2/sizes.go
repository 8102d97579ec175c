package http2

// What is not for the caller to set.
const (
	maxFrame      = 16 << 10         // the largest payload that is taken: the smallest that may be offered (RFC 9113 section 4.2)
	dataPayload   = maxFrame - 9     // of the DATA frames that are sent: frame and head fill one TLS record
	headerTable   = 4 << 10          // HPACK tables, both ways (RFC 7541 section 4.2)
	frameFare     = 256              // bytes of bodies that pay for one frame without any: clients send two WINDOW_UPDATE for some kilobytes
	controlBytes  = 64 << 10         // control frames that wait to be written, beside a buffer of bodies
	maxSettings   = 100              // in one frame
	initialWindow = 1<<16 - 1        // of either side before anybody says otherwise (RFC 9113 section 6.9.2)
	maxWindow     = 1<<31 - 1        // RFC 9113 section 6.9.1
	lateStreams   = 64               // streams that the gateway has reset last, whose frames may still be on their way
	handlersEach  = 2                // handlers for each stream that may be open: those of streams that were reset take their time
	lingerBytes   = 256 << 10        // that are read and dropped at the end
	readBuffer    = 32 << 10         // a frame, and as much again
	writeBuffer   = 4*maxFrame + 128 // four TLS records and what frames a rest
	bodyBuffer    = 16 << 10         // one piece of a body that waits
	keptStreams   = 8                // requests that a connection without any has room for
	keptFields    = 64               // fields of a head that the next one finds room for
	smallBuffer   = 4 << 10          // what most heads and small answers fit in
)
