"""CSV rows with the standard library; tables and plots with pandas, loaded only then."""
