"""The packaged model beside a picture archive (PACS): images in, structured reports out."""
