package oci

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// refAnnotation names an image in a layout (annotations.md of the OCI image specification).
const refAnnotation = "org.opencontainers.image.ref.name"

// WriteTar writes an image, called tag (NAME:TAG), to a tar file that `docker load`, `podman load` and skopeo read. What was
// at file is replaced when all is written, and not before. Equal images give equal files.
func WriteTar(file string, image v1.Image, tag string) (err error) {
	ref, err := name.NewTag(tag)
	if err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	temp := file + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) { // what an interrupted run left
		return fmt.Errorf("write image: %w", err)
	}
	out, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	err = errors.Join(tarball.Write(ref, image, out), out.Close())
	if err == nil {
		err = os.Rename(temp, file)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write image: %w", err), os.Remove(temp))
	}
	return nil
}

// WriteLayout writes an image, called tag, to a directory that must not be there yet or be empty, as an OCI image layout.
func WriteLayout(dir string, image v1.Image, tag string) error {
	if found, err := os.ReadDir(dir); err == nil && len(found) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fmt.Errorf("write image: %s is not empty", dir), err)
	}
	path, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = path.AppendImage(image, layout.WithAnnotations(map[string]string{refAnnotation: tag}))
	}
	if err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	return nil
}
