package oci

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
)

// compression is how a layer's tar file is stored.
type compression int

const (
	plain compression = iota
	gzipped
	zstandard
)

// compressionOf tells by the first bytes.
func compressionOf(b []byte) compression {
	switch {
	case bytes.HasPrefix(b, []byte{0x1f, 0x8b}):
		return gzipped
	case bytes.HasPrefix(b, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return zstandard
	}
	return plain
}

// layer is a v1.Layer that stays stored as it was found.
type layer struct {
	open         func() (io.ReadCloser, error)
	digest, diff v1.Hash // of what is stored, and of the tar file
	size         int64   // of what is stored
	media        types.MediaType
}

var _ v1.Layer = (*layer)(nil)

// Digest implements v1.Layer.
func (l *layer) Digest() (v1.Hash, error) { return l.digest, nil }

// DiffID implements v1.Layer.
func (l *layer) DiffID() (v1.Hash, error) { return l.diff, nil }

// Size implements v1.Layer.
func (l *layer) Size() (int64, error) { return l.size, nil }

// MediaType implements v1.Layer.
func (l *layer) MediaType() (types.MediaType, error) { return l.media, nil }

// Compressed implements v1.Layer. What is stored may well be no compressed file.
func (l *layer) Compressed() (io.ReadCloser, error) { return l.open() }

// Uncompressed implements v1.Layer.
func (l *layer) Uncompressed() (io.ReadCloser, error) {
	in, err := l.open()
	if err != nil {
		return nil, err
	}
	r, _, err := decompress(in)
	if err != nil {
		in.Close()
		return nil, err
	}
	return readCloser{r, in}, nil
}

type readCloser struct {
	io.Reader
	io.Closer
}

// decompress undoes what the first bytes say.
func decompress(in io.Reader) (io.Reader, compression, error) {
	b := bufio.NewReaderSize(in, 64<<10)
	magic, _ := b.Peek(4) // fewer bytes are no compressed file
	switch c := compressionOf(magic); c {
	case gzipped:
		r, err := gzip.NewReader(b)
		return r, c, err
	case zstandard:
		r, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, c, err
		}
		return zstdReader{r}, c, nil
	}
	return b, plain, nil
}

// zstdReader lets go of the decoder at the end of the stream.
type zstdReader struct{ *zstd.Decoder }

// Read implements io.Reader.
func (z zstdReader) Read(p []byte) (int, error) {
	n, err := z.Decoder.Read(p)
	if err != nil {
		z.Decoder.Close()
	}
	return n, err
}

// scan reads a layer once: it fills in what follows from its bytes, and hands its tar file to each. want are the digests
// that the image names; an empty one is not compared.
func (l *layer) scan(ctx context.Context, want layer, left *int64, each func(io.Reader) error) error {
	in, err := l.open()
	if err != nil {
		return err
	}
	defer in.Close()
	stored := &summed{in: in, sum: sha256.New(), left: &l.size, grows: true, ctx: ctx}
	unpacked, how, err := decompress(stored)
	if err != nil {
		return err
	}
	content := &summed{in: unpacked, sum: sha256.New(), left: left, ctx: ctx}
	if err := each(content); err != nil {
		return err
	}
	for _, s := range []*summed{content, stored} { // what follows the end of the tar file belongs to the digests
		if _, err := io.Copy(io.Discard, s); err != nil {
			return err
		}
	}
	l.digest, l.diff = stored.hash(), content.hash()
	if want.digest != (v1.Hash{}) && want.digest != l.digest || want.diff != l.diff {
		return fmt.Errorf("its content has the digests %s and %s, which are not those that the image names", l.digest, l.diff)
	}
	if l.media == "" {
		l.media = map[compression]types.MediaType{
			plain: types.OCIUncompressedLayer, gzipped: types.OCILayer, zstandard: types.OCILayerZStd}[how]
	}
	return nil
}

// summed sums up what is read through it, and counts: up, or down to nothing.
type summed struct {
	in    io.Reader
	sum   hash.Hash
	left  *int64
	grows bool
	ctx   context.Context
}

// Read implements io.Reader.
func (s *summed) Read(p []byte) (int, error) {
	if s.ctx.Err() != nil {
		return 0, context.Cause(s.ctx)
	}
	n, err := s.in.Read(p)
	s.sum.Write(p[:n])
	if s.grows {
		*s.left += int64(n)
	} else if *s.left -= int64(n); *s.left < 0 {
		return 0, &BoundError{What: "bytes of the unpacked image", Most: maxUnpacked}
	}
	return n, err
}

func (s *summed) hash() v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(s.sum.Sum(nil))}
}

// layerOf makes a layer of a tar file in memory. It is not compressed: the same content then has the same digest, whatever
// the compressor's version.
func layerOf(tarFile []byte, media types.MediaType) *layer {
	sum := sha256.Sum256(tarFile)
	h := v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
	return &layer{digest: h, diff: h, size: int64(len(tarFile)), media: media,
		open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(tarFile)), nil }}
}
