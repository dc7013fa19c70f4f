package mapping

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/walpost/walpost/outbox"
)

// golden is the record set of Debezium's defaults. Here its rows are mapped
// with the payload text that Postgres had made of them; the integration tests
// take the whole way through the servers.
const golden = "../../test/integration/testdata/golden/01-defaults-string"

type goldenHeader struct {
	Name  string `json:"name"`
	Value []byte `json:"value_b64"`
}

type goldenRecord struct {
	Topic   string         `json:"topic"`
	Key     []byte         `json:"key_b64"`
	Value   []byte         `json:"value_b64"`
	Headers []goldenHeader `json:"headers"`
}

// goldenRecords returns the records by event id.
func goldenRecords(t *testing.T) map[string]goldenRecord {
	t.Helper()
	var file struct {
		Records []goldenRecord `json:"records"`
	}
	b, err := os.ReadFile(filepath.Join(golden, "records.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	records := map[string]goldenRecord{}
	for _, r := range file.Records {
		records[string(r.Headers[0].Value)] = r
	}
	return records
}

// goldenRows returns id, aggregate type and aggregate id of the rows.
func goldenRows(t *testing.T) [][]byte {
	t.Helper()
	sql, err := os.ReadFile(filepath.Join(golden, "rows.sql"))
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]byte
	insert := regexp.MustCompile(`values\('([^']*)','([^']*)','([^']*)',`)
	for _, match := range insert.FindAllSubmatch(sql, -1) {
		rows = append(rows, match[1:]...)
	}
	return rows
}

func TestMapMakesTheRecordsOfDebeziumsDefaults(t *testing.T) {
	records, rows := goldenRecords(t), goldenRows(t)
	if len(records) == 0 || len(rows) != 3*len(records) {
		t.Fatalf("%d records, %d values of rows", len(records), len(rows))
	}
	plan := newPlan(t, defaultTable(), oidJSONB)
	for ; len(rows) > 0; rows = rows[3:] {
		want := records[string(rows[0])]
		var m outbox.Message
		if err := plan.Map(&m, &Arena{}, [][]byte{rows[0], rows[1], rows[2], []byte("type"), want.Value}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, asGolden(m)); diff != "" {
			t.Errorf("event %s (-Debezium +walpost):\n%s", m.ID, diff)
		}
	}
}

// asGolden leaves walpost's own headers out.
func asGolden(m outbox.Message) goldenRecord {
	r := goldenRecord{Topic: m.Topic, Key: m.Key, Value: m.Value}
	for _, h := range m.Headers {
		if key := string(h.Key); key != outbox.HeaderSource && key != outbox.HeaderPosition {
			r.Headers = append(r.Headers, goldenHeader{Name: key, Value: h.Value})
		}
	}
	return r
}
