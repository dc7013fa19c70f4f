package main

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// Every guarantee in the README names the tests that show it; a test that was
// renamed or deleted must not stay there.
func TestReadmeNamesTestsThatExist(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../../test/integration/*_test.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("integration tests: %d files, %v", len(files), err)
	}
	exists := map[string]bool{}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(source, -1) {
			exists[string(m[1])] = true
		}
	}
	named := regexp.MustCompile("`(Test\\w+)`").FindAllSubmatch(readme, -1)
	if len(named) == 0 {
		t.Fatal("the README names no test")
	}
	for _, m := range named {
		if !exists[string(m[1])] {
			t.Errorf("the README names %s, which is not in test/integration", m[1])
		}
	}
}
