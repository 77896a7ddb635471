"""What an auditor takes home: exports, their verification, and recovery from them."""
