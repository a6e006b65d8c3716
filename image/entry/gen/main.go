// Gen writes the types of package entry and their codec from the schema table. It is run by go generate in image/entry,
// and its output is committed; a test fails when the two differ.
package main

import (
	"fmt"
	"os"

	"stasis.example/image/entry/gen/codec"
)

func main() {
	files, err := codec.Files()
	if err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
	for name, text := range files {
		if err := os.WriteFile(name, text, 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "gen:", err)
			os.Exit(1)
		}
	}
}
