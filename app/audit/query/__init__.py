"""The query language of the audit log: `actor:ada action:project.* -outcome:success`. See docs/query-language.md."""
