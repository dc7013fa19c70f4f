package pgembed

import (
	"archive/tar"
	"archive/zip"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/xi2/xz"

	"github.com/walpost/walpost/test/harness/maven"
)

// Majors that can be fetched, and what Find fetches where any will do.
const (
	OldestMajor = 14
	NewestMajor = 18
)

//go:embed binaries.lock
var lock string

// Search says which installation Find looks for.
type Search struct {
	// Major is the wanted major version; 0 takes the newest of what is
	// installed or cached, and fetches NewestMajor if there is neither.
	Major int
	// Portable leaves out what is installed: downloaded binaries need nothing
	// else of this machine, and can be copied elsewhere.
	Portable bool
	// Cache is where fetched binaries are kept; empty is CacheDir. Whoever
	// runs the server must be able to read it.
	Cache string
	// Fetcher downloads what is missing.
	Fetcher maven.Fetcher
	// Logf is told before something is downloaded; nil is silent.
	Logf func(format string, args ...any)
}

// Find returns a bin directory with initdb and postgres: WALPOST_PG_BIN, then
// Debian's packages and the cache, newest first, then a download into the cache. Several
// processes may call it at the same time.
func Find(ctx context.Context, search Search) (string, error) {
	if dir := os.Getenv("WALPOST_PG_BIN"); dir != "" && search.Major == 0 && !search.Portable {
		if !complete(dir) {
			return "", fmt.Errorf("find Postgres: WALPOST_PG_BIN=%s lacks initdb or postgres", dir)
		}
		return dir, nil
	}
	if search.Cache == "" {
		search.Cache = CacheDir()
	}
	if dir := present(search); dir != "" {
		return dir, nil
	}
	if search.Major == 0 {
		search.Major = NewestMajor
	}
	return search.fetched(ctx)
}

// CacheDir is WALPOST_CACHE, or the user's cache directory; for root it is a
// public one, because the server then runs as somebody who can't look into
// root's home.
func CacheDir() string {
	if dir := os.Getenv("WALPOST_CACHE"); dir != "" {
		return dir
	}
	if os.Getuid() == 0 {
		return "/var/cache/walpost"
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "walpost")
}

// present returns the newest matching bin directory on this machine.
func present(search Search) string {
	patterns := []string{filepath.Join(search.Cache, "postgres", "*", "bin")}
	if !search.Portable {
		patterns = append(patterns, "/usr/lib/postgresql/*/bin")
	}
	var candidates []string
	for _, pattern := range patterns {
		found, _ := filepath.Glob(pattern)
		candidates = append(candidates, found...)
	}
	best := ""
	for _, dir := range candidates {
		wanted := search.Major == 0 && major(dir) >= OldestMajor || search.Major == major(dir)
		if wanted && complete(dir) && (best == "" || major(dir) > major(best)) {
			best = dir
		}
	}
	return best
}

// major reads the version from .../<major>[.<minor>…]/bin; 0 if there is none.
func major(bin string) int {
	name, _, _ := strings.Cut(filepath.Base(filepath.Dir(bin)), ".")
	n, err := strconv.Atoi(name)
	if err != nil {
		return 0
	}
	return n
}

func complete(bin string) bool {
	for _, program := range []string{"initdb", "postgres"} {
		if _, err := os.Stat(filepath.Join(bin, program)); err != nil {
			return false
		}
	}
	return true
}

// fetched makes sure that the cache holds the wanted version.
func (s Search) fetched(ctx context.Context) (string, error) {
	artifact, err := s.artifact()
	if err != nil {
		return "", err
	}
	home := filepath.Join(s.Cache, "postgres", artifact.Version)
	err = maven.Once(home, func(scratch string) error {
		if s.Logf != nil {
			s.Logf("fetching Postgres %s from Maven Central, once", artifact.Version)
		}
		return s.fetch(ctx, artifact, scratch)
	})
	if err != nil {
		return "", fmt.Errorf("fetch Postgres %s: %w", artifact.Version, err)
	}
	return filepath.Join(home, "bin"), nil
}

// artifact picks from the lock what fits the wanted major and this platform.
func (s Search) artifact() (maven.Artifact, error) {
	list, err := maven.ParseLock(lock)
	if err != nil {
		return maven.Artifact{}, fmt.Errorf("binaries.lock: %w", err)
	}
	platform := runtime.GOOS + "-" + runtime.GOARCH
	if runtime.GOARCH == "arm64" {
		platform += "v8"
	}
	i := slices.IndexFunc(list, func(a maven.Artifact) bool {
		return strings.HasSuffix(a.Name, "-"+platform) && strings.HasPrefix(a.Version, strconv.Itoa(s.Major)+".")
	})
	if i < 0 {
		return maven.Artifact{}, fmt.Errorf("find Postgres %d: none installed, and none to fetch for %s; install it and set WALPOST_PG_BIN", s.Major, platform)
	}
	return list[i], nil
}

func (s Search) fetch(ctx context.Context, artifact maven.Artifact, home string) error {
	if err := s.Fetcher.Fetch(ctx, home, []maven.Artifact{artifact}); err != nil {
		return err
	}
	jar := filepath.Join(home, artifact.File())
	if err := unpack(jar, home); err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	return os.Remove(jar)
}

// unpack writes the .txz inside the jar below dir, which exists.
func unpack(jar, dir string) error {
	archive, err := zip.OpenReader(jar)
	if err != nil {
		return err
	}
	defer archive.Close() //nolint:errcheck // read only
	i := slices.IndexFunc(archive.File, func(f *zip.File) bool { return strings.HasSuffix(f.Name, ".txz") })
	if i < 0 {
		return fmt.Errorf("%s holds no .txz", jar)
	}
	packed, err := archive.File[i].Open()
	if err != nil {
		return err
	}
	defer packed.Close() //nolint:errcheck // read only
	plain, err := xz.NewReader(packed, 0)
	if err != nil {
		return err
	}
	return untar(tar.NewReader(plain), dir)
}

// untar writes through an os.Root, which refuses names that lead outside.
func untar(archive *tar.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // holds nothing back
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := extract(root, header, archive); err != nil {
			return fmt.Errorf("%s: %w", header.Name, err)
		}
	}
}

func extract(root *os.Root, header *tar.Header, content io.Reader) error {
	name := filepath.Clean(strings.TrimPrefix(header.Name, "/"))
	if header.Typeflag == tar.TypeDir {
		return root.MkdirAll(name, 0o755)
	}
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	switch header.Typeflag {
	case tar.TypeSymlink:
		return root.Symlink(header.Linkname, name)
	case tar.TypeReg:
		mode := os.FileMode(0o644) | os.FileMode(header.Mode&0o111)
		file, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
		if err != nil {
			return err
		}
		_, err = io.Copy(file, content)
		return errors.Join(err, file.Close())
	}
	return nil
}
