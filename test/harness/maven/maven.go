// Package maven fetches jars from Maven Central: Postgres binaries and Kafka
// are published there, and every machine that can build Java can reach it.
//
// What to fetch is pinned by a lock: coordinates and the SHA-256 of each jar.
// Maven itself fetches where it is installed, so that mirrors and credentials
// of the user's settings count; plain HTTPS does otherwise. Either way a file
// that does not match its sum is an error and never reaches the caller.
package maven

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// central is the public address of Maven Central.
const central = "https://repo.maven.apache.org/maven2"

// concurrent is how many jars are downloaded at a time.
const concurrent = 8

// Artifact is one jar.
type Artifact struct {
	Group   string
	Name    string
	Version string
	SHA256  string // of the jar, lower-case hex
}

// File is the jar's file name.
func (a Artifact) File() string { return a.Name + "-" + a.Version + ".jar" }

func (a Artifact) String() string { return a.Group + ":" + a.Name + ":" + a.Version }

// path is where the jar lies in a Maven repository.
func (a Artifact) path() string {
	return strings.ReplaceAll(a.Group, ".", "/") + "/" + a.Name + "/" + a.Version + "/" + a.File()
}

// ParseLock reads lines of "group:name:version sha256"; empty lines and those
// that begin with # are skipped.
func ParseLock(text string) ([]Artifact, error) {
	var list []Artifact
	lines := bufio.NewScanner(strings.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		a, err := parseArtifact(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		list = append(list, a)
	}
	return list, lines.Err()
}

func parseArtifact(line string) (Artifact, error) {
	coordinates, sum, ok := strings.Cut(line, " ")
	parts := strings.Split(coordinates, ":")
	if raw, err := hex.DecodeString(sum); !ok || len(parts) != 3 || err != nil || len(raw) != sha256.Size {
		return Artifact{}, fmt.Errorf("%q: want group:name:version and a SHA-256 in hex", line)
	}
	return Artifact{Group: parts[0], Name: parts[1], Version: parts[2], SHA256: sum}, nil
}

// Fetcher downloads. Its zero value is ready to use.
type Fetcher struct {
	// Repository is the address that plain downloads start from; empty is
	// Maven Central.
	Repository string
	// Maven is the mvn program: empty looks it up on the PATH, "none" uses
	// plain HTTPS in any case.
	Maven string
	// Client downloads; nil is one that honours the proxy variables.
	Client *http.Client
}

// Fetch puts every artifact's jar into dir, which must exist, and checks all of
// them. On an error dir holds an unspecified part of them.
func (f Fetcher) Fetch(ctx context.Context, dir string, artifacts []Artifact) error {
	if err := f.get(ctx, dir, artifacts); err != nil {
		return err
	}
	for _, a := range artifacts {
		if err := verify(filepath.Join(dir, a.File()), a); err != nil {
			return err
		}
	}
	return nil
}

// get prefers mvn, and falls back to plain HTTPS where mvn fails: a broken
// settings.xml should not be in the way of a download that needs none.
func (f Fetcher) get(ctx context.Context, dir string, artifacts []Artifact) error {
	mvn := f.mvn()
	if mvn == "" {
		return f.download(ctx, dir, artifacts)
	}
	byMaven := copyWithMaven(ctx, mvn, dir, artifacts)
	if byMaven == nil || ctx.Err() != nil {
		return byMaven
	}
	if err := f.download(ctx, dir, artifacts); err != nil {
		return errors.Join(byMaven, err)
	}
	return nil
}

func (f Fetcher) mvn() string {
	switch f.Maven {
	case "none":
		return ""
	case "":
		path, err := exec.LookPath("mvn")
		if err != nil {
			return ""
		}
		return path
	}
	return f.Maven
}

// copyWithMaven resolves exactly the given artifacts: their own dependencies
// are excluded, because the lock is complete.
func copyWithMaven(ctx context.Context, mvn, dir string, artifacts []Artifact) error {
	work, err := os.MkdirTemp("", "walpost-mvn-")
	if err != nil {
		return fmt.Errorf("fetch with mvn: %w", err)
	}
	defer os.RemoveAll(work) //nolint:errcheck // scratch
	pom := filepath.Join(work, "pom.xml")
	if err := os.WriteFile(pom, project(artifacts), 0o600); err != nil {
		return fmt.Errorf("fetch with mvn: %w", err)
	}
	cmd := exec.CommandContext(ctx, mvn, "-q", "-B", "-ntp", "-f", pom, //nolint:gosec // the user's own mvn
		"dependency:copy-dependencies", "-DexcludeTransitive=true", "-DoutputDirectory="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("fetch %s and %d more with mvn: %w: %s", artifacts[0], len(artifacts)-1, err, firstLines(out, 3))
	}
	return nil
}

func project(artifacts []Artifact) []byte {
	var b strings.Builder
	b.WriteString(`<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>` +
		"\n<groupId>walpost</groupId><artifactId>fetch</artifactId><version>1</version>\n<dependencies>\n")
	for _, a := range artifacts {
		fmt.Fprintf(&b, "<dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>%s</version>"+
			"<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions></dependency>\n",
			a.Group, a.Name, a.Version)
	}
	b.WriteString("</dependencies></project>\n")
	return []byte(b.String())
}

func (f Fetcher) download(ctx context.Context, dir string, artifacts []Artifact) error {
	client := f.Client
	if client == nil {
		transport := &http.Transport{Proxy: http.ProxyFromEnvironment, ResponseHeaderTimeout: time.Minute}
		defer transport.CloseIdleConnections()
		client = &http.Client{Transport: transport}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(concurrent)
	for _, a := range artifacts {
		group.Go(func() error { return f.downloadOne(ctx, client, dir, a) })
	}
	return group.Wait()
}

func (f Fetcher) downloadOne(ctx context.Context, client *http.Client, dir string, a Artifact) error {
	base := f.Repository
	if base == "" {
		base = central
	}
	url := base + "/" + a.path()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("download %s: %w", a, err)
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("download %s: %w", a, err)
	}
	defer response.Body.Close() //nolint:errcheck // read only
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("download %s: %s", url, response.Status)
	}
	return save(filepath.Join(dir, a.File()), response.Body)
}

func save(path string, r io.Reader) error {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("save jar: %w", err)
	}
	_, err = io.Copy(file, r)
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("save %s: %w", path, err)
	}
	return nil
}

func verify(path string, a Artifact) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("verify %s: %w", a, err)
	}
	defer file.Close() //nolint:errcheck // read only
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return fmt.Errorf("verify %s: %w", a, err)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != a.SHA256 {
		return fmt.Errorf("verify %s: SHA-256 is %s, the lock says %s: the download is damaged or not what was published", a, got, a.SHA256)
	}
	return nil
}

func firstLines(out []byte, n int) string {
	lines := strings.SplitN(strings.TrimSpace(string(out)), "\n", n+1)
	return strings.Join(lines[:min(n, len(lines))], " | ")
}
