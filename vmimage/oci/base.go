// Package oci puts what a bottle's guest must hold on top of a container image: a layer with the guest files, the bottle's
// authority in the image's own trust stores, and the environment in its configuration.
//
// The base image may be anybody's: it is read and never unpacked, and what it makes this package read, remember and do is
// bounded.
package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Base is an image that was read from a file or directory. It reads from there until it is closed. It is not safe for
// concurrent use.
type Base struct {
	archive          archive
	manifest, config []byte // as the image has them
	media            types.MediaType
	file             *v1.ConfigFile
	layers           []*layer
	tree             *tree
	indexes          int // read so far
}

// Open reads an image: a tar file as `docker save` or `podman save` writes it, an OCI image layout as a directory or as a
// tar file. It must hold one image for Linux and this machine's architecture. Open reads every byte once and compares
// digests, which takes some seconds for a gigabyte, and blocks until then or until ctx ends. The caller closes the Base.
//
// An image that takes more than it may is a *BoundError.
func Open(ctx context.Context, name string) (*Base, error) {
	a, err := openArchive(name)
	if err != nil {
		return nil, fmt.Errorf("open image %s: %w", name, err)
	}
	b, err := read(ctx, a)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open image %s: %w", name, err), a.Close())
	}
	return b, nil
}

// Close ends the reading of the file.
func (b *Base) Close() error { return b.archive.Close() }

func read(ctx context.Context, a archive) (*Base, error) {
	b := &Base{archive: a, tree: newTree()}
	var want []layer
	index, err := readSmall(a, "index.json")
	if err == nil {
		want, err = b.readLayout(index)
	} else if list, missing := readSmall(a, "manifest.json"); missing == nil {
		want, err = b.readSaved(list)
	} else {
		err = fmt.Errorf("it is no image: %w", errors.Join(err, missing))
	}
	if err != nil {
		return nil, err
	}
	left := int64(maxUnpacked)
	for i, l := range b.layers {
		apply := func(r io.Reader) error { return b.tree.apply(i, r) }
		if err := l.scan(ctx, want[i], &left, apply); err != nil {
			return nil, fmt.Errorf("read layer %d: %w", i+1, err)
		}
	}
	if b.manifest == nil { // docker save has none
		b.media = types.OCIManifestSchema1
		b.manifest, err = b.makeManifest()
	}
	return b, err
}

// setConfig takes the image's configuration, and from it the digests of its layers.
func (b *Base) setConfig(raw []byte, layers int) error {
	file, err := v1.ParseConfigFile(bytes.NewReader(raw))
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	if layers > maxLayers {
		return &BoundError{What: "layers", Most: maxLayers}
	}
	if len(file.RootFS.DiffIDs) != layers {
		return fmt.Errorf("read configuration: it names %d layers, and the image has %d", len(file.RootFS.DiffIDs), layers)
	}
	if file.OS != "" && file.OS != "linux" {
		return fmt.Errorf("the image is for %s: a bottle runs Linux", file.OS)
	}
	b.config, b.file = raw, file
	return nil
}

// add adds a layer whose bytes are a file of the archive.
func (b *Base) add(name string, media types.MediaType) {
	b.layers = append(b.layers, &layer{media: media, open: func() (io.ReadCloser, error) {
		in, _, err := b.archive.open(name)
		return in, err
	}})
}

// saved is manifest.json of `docker save`.
type saved []struct {
	Config string
	Layers []string
}

func (b *Base) readSaved(list []byte) ([]layer, error) {
	var images saved
	if err := json.Unmarshal(list, &images); err != nil {
		return nil, fmt.Errorf("read manifest.json: %w", err)
	}
	if len(images) != 1 {
		return nil, fmt.Errorf("it holds %d images: save one alone", len(images))
	}
	raw, err := readSmall(b.archive, images[0].Config)
	if err != nil {
		return nil, err
	}
	if err := b.setConfig(raw, len(images[0].Layers)); err != nil {
		return nil, err
	}
	want := make([]layer, len(images[0].Layers))
	for i, name := range images[0].Layers {
		want[i].diff = b.file.RootFS.DiffIDs[i]
		b.add(name, "")
	}
	return want, nil
}

// makeManifest describes an image that came without a manifest.
func (b *Base) makeManifest() ([]byte, error) {
	digest, size, err := v1.SHA256(bytes.NewReader(b.config))
	if err != nil {
		return nil, err
	}
	m := v1.Manifest{SchemaVersion: 2, MediaType: b.media,
		Config: v1.Descriptor{MediaType: types.OCIConfigJSON, Digest: digest, Size: size}, Layers: []v1.Descriptor{}}
	for _, l := range b.layers {
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: l.media, Digest: l.digest, Size: l.size})
	}
	return json.Marshal(m)
}

func (b *Base) readLayout(index []byte) ([]layer, error) {
	found, err := b.manifests(index)
	if err != nil {
		return nil, err
	}
	chosen, err := choose(found)
	if err != nil {
		return nil, err
	}
	if b.manifest, err = readBlob(b.archive, chosen.Digest); err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	m, err := v1.ParseManifest(bytes.NewReader(b.manifest))
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	raw, err := readBlob(b.archive, m.Config.Digest)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if err := b.setConfig(raw, len(m.Layers)); err != nil {
		return nil, err
	}
	b.media = chosen.MediaType
	want := make([]layer, len(m.Layers))
	for i, d := range m.Layers {
		name, err := blobPath(d.Digest)
		if err != nil {
			return nil, err
		}
		want[i] = layer{digest: d.Digest, diff: b.file.RootFS.DiffIDs[i]}
		b.add(name, d.MediaType)
	}
	return want, nil
}

// manifests lists the images of an index and of those that it refers to.
func (b *Base) manifests(index []byte) ([]v1.Descriptor, error) {
	if b.indexes++; b.indexes > maxIndexes {
		return nil, &BoundError{What: "indexes", Most: maxIndexes}
	}
	parsed, err := v1.ParseIndexManifest(bytes.NewReader(index))
	if err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	var found []v1.Descriptor
	for _, d := range parsed.Manifests {
		switch {
		case d.MediaType.IsImage():
			found = append(found, d)
		case d.MediaType.IsIndex():
			raw, err := readBlob(b.archive, d.Digest)
			if err != nil {
				return nil, fmt.Errorf("read index: %w", err)
			}
			more, err := b.manifests(raw)
			if err != nil {
				return nil, err
			}
			found = append(found, more...)
		}
	}
	return found, nil
}

// choose returns the one image for this machine.
func choose(found []v1.Descriptor) (v1.Descriptor, error) {
	var fit []v1.Descriptor
	var all []string
	for _, d := range found {
		p := d.Platform
		switch {
		case p == nil:
			all = append(all, "any")
		case p.OS == "unknown": // statements about an image, which are no image
			continue
		default:
			all = append(all, p.String())
		}
		if p == nil || p.OS == "linux" && p.Architecture == runtime.GOARCH {
			if !slices.ContainsFunc(fit, func(f v1.Descriptor) bool { return f.Digest == d.Digest }) {
				fit = append(fit, d)
			}
		}
	}
	switch len(fit) {
	case 1:
		return fit[0], nil
	case 0:
		return v1.Descriptor{}, fmt.Errorf("it holds no image for linux/%s, but for: %q", runtime.GOARCH, strings.Join(all, " "))
	}
	return v1.Descriptor{}, fmt.Errorf("it holds %d images for linux/%s: save one alone", len(fit), runtime.GOARCH)
}

// core is how go-containerregistry looks at a Base.
type core struct{ *Base }

// RawManifest implements partial.CompressedImageCore.
func (c core) RawManifest() ([]byte, error) { return c.manifest, nil }

// RawConfigFile implements partial.CompressedImageCore.
func (c core) RawConfigFile() ([]byte, error) { return c.config, nil }

// MediaType implements partial.CompressedImageCore.
func (c core) MediaType() (types.MediaType, error) { return c.media, nil }

// LayerByDigest implements partial.CompressedImageCore.
func (c core) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	for _, l := range c.layers {
		if l.digest == h {
			return l, nil
		}
	}
	return nil, fmt.Errorf("the image has no layer %s", h)
}

// image returns the base as go-containerregistry has it.
func (b *Base) image() (v1.Image, error) { return partial.CompressedToImage(core{b}) }

// contents returns the content of files of the image. A file that is too large, or one too many, is a *BoundError.
func (b *Base) contents(ctx context.Context, want map[location]bool) (map[location][]byte, error) {
	if len(want) > maxContents {
		return nil, &BoundError{What: "trust stores in the image", Most: maxContents}
	}
	found := map[location][]byte{}
	for i, l := range b.layers {
		last := -1
		for at := range want {
			if at.layer == i {
				last = max(last, at.entry)
			}
		}
		if last < 0 {
			continue
		}
		if err := l.contents(ctx, i, last, want, found); err != nil {
			return nil, fmt.Errorf("read layer %d again: %w", i+1, err)
		}
	}
	return found, nil
}
