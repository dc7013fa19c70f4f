package pgembed

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// restore unpacks a backup into the data directory. It knows directories and
// files, which is all there is in a cluster without tablespaces.
func (s *Server) restore(backup []byte) error {
	if err := s.directory(s.data()); err != nil {
		return err
	}
	archive := tar.NewReader(bytes.NewReader(backup))
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = s.unpack(header, archive)
		}
		if err != nil {
			return err
		}
	}
}

func (s *Server) unpack(header *tar.Header, content io.Reader) error {
	if !filepath.IsLocal(header.Name) {
		return fmt.Errorf("%s leads elsewhere", header.Name)
	}
	path := filepath.Join(s.data(), header.Name) //nolint:gosec // local, as was just checked
	switch header.Typeflag {
	case tar.TypeDir:
		return s.directory(path)
	case tar.TypeReg:
		return s.file(path, content)
	default:
		return fmt.Errorf("%s is neither a directory nor a file", header.Name)
	}
}

func (s *Server) directory(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	return s.user.own(path)
}

func (s *Server) file(path string, content io.Reader) error {
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, content)
	return errors.Join(err, out.Close(), s.user.own(path))
}
