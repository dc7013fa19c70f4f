package maven

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// repository serves one jar the way Maven Central does.
func repository(t *testing.T, content string) (string, Artifact) {
	t.Helper()
	sum := sha256.Sum256([]byte(content))
	a := Artifact{Group: "org.example.x", Name: "thing", Version: "1.2", SHA256: hex.EncodeToString(sum[:])}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/org/example/x/thing/1.2/thing-1.2.jar" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte(content))
	}))
	t.Cleanup(server.Close)
	return server.URL, a
}

func TestDownloadPutsTheVerifiedJarInPlace(t *testing.T) {
	url, a := repository(t, "jar bytes")
	dir := t.TempDir()
	if err := (Fetcher{Repository: url, Maven: "none"}).Fetch(context.Background(), dir, []Artifact{a}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "thing-1.2.jar"))
	if err != nil || string(got) != "jar bytes" {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestWrongSumIsAnError(t *testing.T) {
	url, a := repository(t, "tampered")
	a.SHA256 = strings.Repeat("0", 64)
	err := (Fetcher{Repository: url, Maven: "none"}).Fetch(context.Background(), t.TempDir(), []Artifact{a})
	if err == nil || !strings.Contains(err.Error(), "the lock says") {
		t.Fatalf("want a checksum error, got %v", err)
	}
}

func TestMissingJarIsAnError(t *testing.T) {
	url, a := repository(t, "x")
	a.Version = "9"
	err := (Fetcher{Repository: url, Maven: "none"}).Fetch(context.Background(), t.TempDir(), []Artifact{a})
	if err == nil || !strings.Contains(err.Error(), "404") {
		t.Fatalf("want a 404, got %v", err)
	}
}

func TestFailingMavenFallsBackToDownload(t *testing.T) {
	url, a := repository(t, "jar bytes")
	if err := (Fetcher{Repository: url, Maven: "/bin/false"}).Fetch(context.Background(), t.TempDir(), []Artifact{a}); err != nil {
		t.Fatal(err)
	}
}

func TestParseLock(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	got, err := ParseLock("# comment\n\norg.a:b:1.0 " + sum + "\n")
	if err != nil || len(got) != 1 || got[0] != (Artifact{"org.a", "b", "1.0", sum}) {
		t.Fatalf("got %v, %v", got, err)
	}
	for _, bad := range []string{"org.a:b " + sum, "org.a:b:1.0", "org.a:b:1.0 abc", "org.a:b:1.0 " + strings.Repeat("zz", 32)} {
		if _, err := ParseLock(bad); err == nil {
			t.Errorf("%q: want an error", bad)
		}
	}
}

func TestOnceFillsOnceAndWhole(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache", "thing")
	broken := Once(dir, func(scratch string) error {
		return errors.Join(os.WriteFile(filepath.Join(scratch, "half"), nil, 0o600), errors.New("broken"))
	})
	if _, err := os.Stat(dir); broken == nil || !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("a failed fill: error %v, directory %v", broken, err)
	}
	fills := make(chan struct{}, 8)
	var group errgroup.Group
	for range 8 {
		group.Go(func() error {
			return Once(dir, func(scratch string) error {
				fills <- struct{}{}
				return os.WriteFile(filepath.Join(scratch, "whole"), nil, 0o600)
			})
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "whole")); err != nil || len(fills) != 1 {
		t.Errorf("filled %d times, %v", len(fills), err)
	}
}
