package integration

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/test/harness"
)

// goldenSet is the records.json of a set; the folder's README tells where they
// come from.
type goldenSet struct {
	Records []struct {
		Topic     string  `json:"topic"`
		Partition int32   `json:"partition"`
		Key       *string `json:"key_b64"`
		Value     *string `json:"value_b64"`
		Headers   []struct {
			Name  string  `json:"name"`
			Value *string `json:"value_b64"`
		} `json:"headers"`
	} `json:"records"`
}

// TestGoldenDefaults: with an outbox as another relay left it, and without any
// settings but addresses and names, the same rows become the same records, byte
// for byte.
func TestGoldenDefaults(t *testing.T) {
	dir := filepath.Join("testdata", "golden", "01-defaults-string")
	onEachRelease(t, func(t *testing.T, pg *harness.PG) {
		p := newPipeline(t, pg)
		delete(p.settings, "outbox.topic")
		p.set("kafka.topics.create", true)
		p.exec(readFile(t, dir, "table.sql"))
		p.initialise()
		relay := p.start()

		p.exec(readFile(t, dir, "rows.sql"))
		want := wantGolden(t, dir)

		var got []string
		harness.Eventually(t, patience, "all records", func() error {
			got = p.ownRecords("outbox.event.order", "outbox.event.customer")
			if len(got) < len(want) {
				return fmt.Errorf("%d of %d", len(got), len(want))
			}
			return nil
		})
		p.stop(relay)
		if diff := cmp.Diff(byPartition(want), byPartition(got)); diff != "" {
			t.Errorf("records (-want +got):\n%s", diff)
		}
	})
}

func readFile(t *testing.T, dir, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// wantGolden is a line per record, beginning with its topic and partition.
func wantGolden(t *testing.T, dir string) []string {
	t.Helper()
	var set goldenSet
	if err := json.Unmarshal([]byte(readFile(t, dir, "records.json")), &set); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, r := range set.Records {
		headers := ""
		for _, h := range r.Headers {
			headers += " " + h.Name + "=" + printed(decoded(t, h.Value))
		}
		lines = append(lines, fmt.Sprintf("%s-%d: %s %s%s", r.Topic, r.Partition, printed(decoded(t, r.Key)), printed(decoded(t, r.Value)), headers))
	}
	return lines
}

func decoded(t *testing.T, text *string) []byte {
	t.Helper()
	if text == nil {
		return nil
	}
	raw, err := base64.StdEncoding.AppendDecode([]byte{}, []byte(*text))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// printed tells null from empty.
func printed(b []byte) string {
	if b == nil {
		return "null"
	}
	return fmt.Sprintf("%q", b)
}

// ownRecords prints this pipeline's records of topics that others use too,
// walpost's own two headers aside.
func (p *pipeline) ownRecords(topics ...string) []string {
	p.t.Helper()
	var existing, lines []string
	for _, topic := range topics {
		existing = append(existing, p.kafka.Topics(p.t, topic)...)
	}
	if len(existing) < len(topics) {
		return nil
	}
	for _, r := range p.kafka.Consume(p.t, topics...) {
		if !strings.Contains(r.Header(outbox.HeaderSource), "/"+p.name+"/") {
			continue
		}
		line := fmt.Appendf(nil, "%s-%d: %s %s", r.Topic, r.Partition, printed(r.Key), printed(r.Value))
		for _, h := range r.Headers {
			if h.Key != outbox.HeaderSource && h.Key != outbox.HeaderPosition {
				line = fmt.Appendf(line, " %s=%s", h.Key, printed(h.Value))
			}
		}
		lines = append(lines, string(bytes.TrimSpace(line)))
	}
	return lines
}

// byPartition keeps the order within a partition: there is none between them.
func byPartition(lines []string) map[string][]string {
	all := map[string][]string{}
	for _, line := range lines {
		partition, record, _ := strings.Cut(line, ": ")
		all[partition] = append(all[partition], record)
	}
	return all
}
